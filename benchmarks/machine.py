"""The machine that figures come from."""

from __future__ import annotations

import platform
from typing import Any

from poolgrad import dispatch

__all__ = ["machine"]


def machine(cpus: list[int]) -> dict[str, Any]:
    """Describe the machine, as far as it matters to the figures."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(cpus),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "build": dispatch.active().name,
    }
