"""Who is measured: a module for each, imported in a process of its own.

Each module has one function, ``prepare(case)``, which returns a `Prepared`, or None if the
library does not have just that pooling in that layout. What a library does once, such as compiling
or taking over arrays, `prepare` does; what it does in each call is in the runs. Nothing is
transposed in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from benchmarks.workloads import Array, Case

__all__ = ["CONTENDERS", "FLOOR", "OURS", "OURS_OUT", "Contender", "Prepared", "contenders_of"]

#: What is measured in Poolgrad's process: fresh results, results in `out`, and copying.
OURS, OURS_OUT, FLOOR = "Poolgrad", "Poolgrad out=", "copy"


class Contender(NamedTuple):
    """The module that measures a library, and the distribution that installs it."""

    module: str
    distribution: str


CONTENDERS: Final[Mapping[str, Contender]] = {
    OURS: Contender("poolgrad", "poolgrad"),
    "PyTorch": Contender("torch", "torch"),
    "JAX": Contender("jax", "jax"),
    "TensorFlow": Contender("tensorflow", "tensorflow-cpu"),
    "ONNX Runtime": Contender("onnxruntime", "onnxruntime"),
    "OpenVINO": Contender("openvino", "openvino"),
    "XNNPACK": Contender("litert", "ai-edge-litert"),
    "OpenCV": Contender("opencv", "opencv-python-headless"),
    "SciPy": Contender("scipy", "scipy"),
    "NumPy": Contender("numpy", "numpy"),
}


@dataclass(frozen=True)
class Prepared:
    """What to time, and how to read what it returned.

    Attributes
    ----------
    runs : dict of str to callable
        What to time, by name.
    arrays : callable
        Turns what the first run returned into a tuple of arrays in the layout of the case: y; y
        and the argmax as row-major positions in the plane; or dx.
    """

    runs: Mapping[str, Callable[[], Any]]
    arrays: Callable[[Any], tuple[Array, ...]]


def contenders_of(case: Case) -> tuple[str, ...]:
    """Return the names of those who may run a case."""
    return {"peers": tuple(CONTENDERS), "small": (OURS, "PyTorch")}.get(
        case.workload.group, (OURS,)
    )
