"""Pooling layers, forward and backward, compiled for NumPy.

The functions take arrays and hyperparameters and return arrays. `plan` checks a pooling without
data and tells its shapes, padding and memory. `Pool2D` is a layer in the style of networks
written from scratch.
"""

from importlib.metadata import version as _version

from poolgrad._memory import release_memory
from poolgrad.errors import DtypeError, ParameterError, PoolgradError, ShapeError
from poolgrad.functional import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    adaptive_max_pool,
    adaptive_max_pool_backward,
    argmax_to_indices,
    avg_pool,
    avg_pool_backward,
    max_pool,
    max_pool_backward,
)
from poolgrad.layers import Pool2D
from poolgrad.operations import OPERATIONS, Operation
from poolgrad.plan import Plan, plan
from poolgrad.threads import get_num_threads, set_num_threads

__all__ = [
    "OPERATIONS",
    "DtypeError",
    "Operation",
    "ParameterError",
    "Plan",
    "Pool2D",
    "PoolgradError",
    "ShapeError",
    "adaptive_avg_pool",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "adaptive_max_pool_backward",
    "argmax_to_indices",
    "avg_pool",
    "avg_pool_backward",
    "get_num_threads",
    "max_pool",
    "max_pool_backward",
    "plan",
    "release_memory",
    "set_num_threads",
]

__version__ = _version("poolgrad")
