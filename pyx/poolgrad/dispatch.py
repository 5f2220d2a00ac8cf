"""Which build of the kernels is used: the best that the CPU can run, chosen once at import.

All builds come from the same source and give the same bits, so the choice is one of speed alone.
``POOLGRAD_ISA`` names another one, for tests and measurements.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from poolgrad import _cpu
from poolgrad.arrays import DTYPES
from poolgrad.errors import ParameterError, show

__all__ = ["BUILDS", "Build", "active", "choose", "kernels", "load", "runnable"]


@dataclass(frozen=True, slots=True)
class Build:
    """One build of the kernels: its name, and what it needs of the CPU."""

    name: str
    needs: frozenset[str]

    def module(self, dtype: np.dtype[Any]) -> str:
        """Return the name of its module for a dtype."""
        return f"poolgrad._{dtype.name}_{self.name}"


#: Best first. The last one runs anywhere.
BUILDS: Final = (
    Build("avx512", frozenset({"avx512"})),
    Build("avx2", frozenset({"avx2"})),
    Build("baseline", frozenset()),
)


def runnable() -> tuple[Build, ...]:
    """Return the builds that are installed and that this CPU can run, best first."""
    features = _cpu.features()
    # Other architectures have the baseline only.
    return tuple(b for b in BUILDS if b.needs <= features and find_spec(b.module(DTYPES[0])))


def choose(environment: Mapping[str, str]) -> Build:
    """Return the build that an environment's ``POOLGRAD_ISA`` asks for, else the best.

    Raises
    ------
    ParameterError
        If there is no such build, or the CPU cannot run it.
    """
    wanted = environment.get("POOLGRAD_ISA", "").strip()
    if not wanted:
        return runnable()[0]
    for build in runnable():
        if build.name == wanted:
            return build
    names = ", ".join(build.name for build in BUILDS)
    if any(build.name == wanted for build in BUILDS):
        here = ", ".join(build.name for build in runnable())
        raise ParameterError(f"POOLGRAD_ISA: {wanted} does not run on this CPU, which has {here}")
    raise ParameterError(f"POOLGRAD_ISA: {show(wanted)} is not one of {names}")


_active: Final = choose(os.environ)


def load(build: Build) -> dict[np.dtype[Any], Any]:
    """Return a build's module for each dtype."""
    return {dtype: importlib.import_module(build.module(dtype)) for dtype in DTYPES}


#: The modules of the build in use.
kernels: Final = load(_active)


def active() -> Build:
    """Return the build in use."""
    return _active
