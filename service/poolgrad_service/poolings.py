"""The functions of both clients, made from the library's registry of operations.

`poolings.pyi` has their types.
"""

import inspect

import poolgrad
from poolgrad.errors import ParameterError, show
from poolgrad_service.exchange import Asked

__all__ = ["AsyncPoolings", "Poolings"]


class Poolings:
    """The library's functions, asked of a service by ``_pool`` of a subclass."""

    def __init__(self, url, format):
        if format not in ("binary", "json"):
            raise ParameterError(f"format: {show(format)} is not 'binary' or 'json'")
        self.url = str(url).rstrip("/")
        self.format = format

    def __repr__(self):
        """Return how it was made."""
        return f"{type(self).__name__}({self.url!r})"


class AsyncPoolings(Poolings):
    """The same; each function returns an awaitable of its result."""


def _function(op, backward):
    """Return a client's function for an operation and a direction."""
    name = f"{op}_backward" if backward else op
    local = getattr(poolgrad, name)
    here = ("out", "num_threads")  # the service has its own
    kept = [p for p in inspect.signature(local).parameters.values() if p.name not in here]
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([itself, *kept])

    def function(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        client = bound.arguments["self"]
        return client._pool(Asked(op, backward, bound.arguments, client.format == "binary"))

    function.__name__ = name
    function.__qualname__ = f"Poolings.{name}"
    function.__signature__ = signature
    first = inspect.getdoc(local).partition("\n")[0]
    function.__doc__ = (
        f"{first}\n\nThis is `poolgrad.{name}`, which tells the rest, by the service."
    )
    return function


for _op in poolgrad.OPERATIONS:
    for _backward in (False, True):
        _made = _function(_op, _backward)
        setattr(Poolings, _made.__name__, _made)
