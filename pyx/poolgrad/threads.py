"""How many threads a call uses, and the helpers that take part in it.

Kernels take tiles of work from a common counter, so a helper that starts late, or never, costs time
and changes nothing. They need no OpenMP at build or run time, the same ones serve every calling
thread, and a forked child makes its own. `_crew` says what they do.
"""

from __future__ import annotations

import os
import threading
from math import ceil
from pathlib import Path
from typing import Final

from poolgrad import _crew
from poolgrad.errors import ParameterError, show
from poolgrad.geometry import integer

__all__ = ["gather", "get_num_threads", "resolve", "set_num_threads", "usable_cpus"]

#: More threads than this for one call is a mistake, and would only exhaust the machine.
MOST: Final = 1024


def _cgroup_cpus() -> float:
    """Return the CPUs that the control group's quota grants; infinity where there is none."""
    try:
        # The unified hierarchy shows a container its own group at the root.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()[:2]
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return float("inf")
    try:
        return float("inf") if quota in ("max", "-1") else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return float("inf")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    return max(1, ceil(min(cpus, _cgroup_cpus(), MOST)))


def _checked(name: str, value: object) -> int:
    number = integer(name, value, least=1)
    if number > MOST:
        raise ParameterError(f"{name}: {show(number)} is above {MOST}, the most allowed")
    return number


def _default() -> int:
    """Return the number of threads that the environment asks for, else that of the CPUs."""
    text = os.environ.get("POOLGRAD_NUM_THREADS", "").strip()
    if not text:
        return usable_cpus()
    try:
        number = int(text)
    except ValueError:
        raise ParameterError(
            f"POOLGRAD_NUM_THREADS: {show(text)} is not an integer of at least 1"
        ) from None
    return _checked("POOLGRAD_NUM_THREADS", number)


_num_threads = _default()
_lock = threading.Lock()
_helpers = 0


def set_num_threads(num_threads: int) -> None:
    """Set how many threads a call uses where it does not say.

    Parameters
    ----------
    num_threads : int
        At least 1. Results do not depend on it, only the time that they take.

    Raises
    ------
    ParameterError
        If it is no integer, or not in 1 .. 1024.

    Examples
    --------
    >>> import poolgrad as pg
    >>> pg.set_num_threads(2)
    >>> pg.get_num_threads()
    2
    """
    global _num_threads
    _num_threads = _checked("num_threads", num_threads)


def get_num_threads() -> int:
    """Return how many threads a call uses where it does not say.

    At first this is ``POOLGRAD_NUM_THREADS``, else the number of CPUs that the process may use,
    counting its affinity and its control group's quota.

    Examples
    --------
    >>> import poolgrad as pg
    >>> pg.get_num_threads() >= 1
    True
    """
    return _num_threads


def resolve(num_threads: object) -> int:
    """Return the number of threads for an argument `num_threads`, None meaning the default."""
    return _num_threads if num_threads is None else _checked("num_threads", num_threads)


def _forget_helpers() -> None:
    """Start anew in a forked child: the parent's threads and locks do not live there."""
    global _lock, _helpers
    _lock, _helpers = threading.Lock(), 0
    _crew.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def gather(helpers: int) -> int:
    """See to it that so many helpers are there for a kernel, if they can be had; return them."""
    global _helpers
    if _helpers < helpers:
        with _lock:
            try:
                while _helpers < helpers:
                    name = f"poolgrad-{_helpers + 1}"
                    threading.Thread(target=_crew.serve, name=name, daemon=True).start()
                    _helpers += 1
            except RuntimeError:
                # The interpreter is shutting down, or the system has no thread left.
                return _helpers
    return helpers
