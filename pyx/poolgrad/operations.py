"""The operations that there are: the one list that plans, routes, the command and tests read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from types import MappingProxyType
from typing import Final

__all__ = ["OPERATIONS", "Operation"]

_WINDOW: Final[dict[str, object]] = {
    "kernel_size": Parameter.empty,
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "layout": "channels_last",
}

_ADAPTIVE: Final[dict[str, object]] = {
    "output_size": Parameter.empty,
    "layout": "channels_last",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One pooling operation.

    Parameters
    ----------
    name : str
        The name of its function, used everywhere.
    summary : str
        One line for people.
    has_argmax : bool
        Whether each output stems from one input element, which an argmax can point at.
    parameters : mapping of str to object
        Hyperparameters and their defaults; `inspect.Parameter.empty` marks those without.
    """

    name: str
    summary: str
    has_argmax: bool
    parameters: Mapping[str, object]


#: Every operation by name.
OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        operation.name: operation
        for operation in (
            Operation(
                "max_pool",
                "The largest element of each window.",
                has_argmax=True,
                parameters=MappingProxyType(_WINDOW),
            ),
            Operation(
                "avg_pool",
                "The average of each window.",
                has_argmax=False,
                parameters=MappingProxyType(
                    _WINDOW | {"count_include_pad": True, "divisor_override": None}
                ),
            ),
            Operation(
                "adaptive_max_pool",
                "The largest element of each window, of as many as asked for.",
                has_argmax=True,
                parameters=MappingProxyType(_ADAPTIVE),
            ),
            Operation(
                "adaptive_avg_pool",
                "The average of each window, of as many as asked for.",
                has_argmax=False,
                parameters=MappingProxyType(_ADAPTIVE),
            ),
        )
    }
)
