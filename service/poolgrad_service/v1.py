"""The service's own bodies: JSON with members of the library's names, or one array as npy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from poolgrad.errors import show
from poolgrad_service import npy
from poolgrad_service.answers import Asked, Body, Part
from poolgrad_service.codec import NAMES, Given, decode, encode, text_bytes
from poolgrad_service.errors import Problem, problem_of, refused
from poolgrad_service.parameters import from_text
from poolgrad_service.schemas import Call
from poolgrad_service.settings import Settings
from poolgrad_service.tensors import as_bytes

__all__ = ["V1"]

Array = npt.NDArray[Any]


class V1:
    """One request to ``/v1``, whose body and reply are each JSON or npy.

    Parameters
    ----------
    call : Call
        What is asked.
    given, wanted : str
        The media types of the body and of the reply.
    query : str
        The address's query, which has the hyperparameters where the body is npy.
    """

    def __init__(
        self,
        call: Call,
        given: str = "application/json",
        wanted: str = "application/json",
        query: str = "",
    ) -> None:
        self.call = call
        self.given = given
        self.wanted = wanted
        self.query = query
        self.form = "nested"

    def read(self, body: Body, settings: Settings) -> Asked:
        """Read a body of either type."""
        call = self.call
        arrays: dict[str, Given]
        if self.given == npy.MEDIA_TYPE:
            fields = _of_query(self.query)
            name = call.arrays[0]
            array = npy.parsed(body, name, settings.max_elements)
            if "dtype" in fields and fields["dtype"] != array.dtype.name:
                raise refused("", f"dtype: {show(fields['dtype'])}, but {name} is {array.dtype}")
            arrays = {name: Given(array, "flat")}
        else:
            fields, arrays = decode(
                body, max_elements=settings.max_elements, max_depth=settings.max_depth
            )
        members = call.check(fields, arrays)
        if call.action == "plan":
            return Asked(members, arrays)
        first = arrays.get("x") or arrays["dy"]
        self.form = members["encoding"] or first.form
        outputs = ["y"] if call.action == "forward" else ["dx"]
        for member, more in (("return_argmax", "argmax"), ("return_y", "y")):
            if members.get(member):
                if self.wanted == npy.MEDIA_TYPE:
                    raise refused(
                        f"/{member}", f"{member}: an npy has one array; accept application/json"
                    )
                outputs.append(more)
        return Asked(members, arrays, outputs)

    def text(self, body: Body) -> int:
        """Return how many bytes of a body are JSON."""
        return 0 if self.given == npy.MEDIA_TYPE else len(body)

    def room(self, dtype: np.dtype[Any], elements: int) -> int:
        """Return about how many bytes of text a result takes."""
        return 0 if self.wanted == npy.MEDIA_TYPE else text_bytes(dtype, elements, self.form)

    def write(
        self, plan: Any, results: Mapping[str, Array]
    ) -> tuple[list[Part], str, Mapping[str, str]]:
        """Return the reply's body, type and headers."""
        if self.wanted == npy.MEDIA_TYPE:
            (array,) = results.values()
            return [npy.header(array), as_bytes(array)], self.wanted, {}
        members: dict[str, Any]
        if not results:
            members = {
                "op": plan.op,
                "input_shape": plan.input_shape,
                "output_shape": plan.output_shape,
                "dtype": plan.dtype.name,
                "argmax_dtype": plan.argmax_dtype and plan.argmax_dtype.name,
                "kernel_size": plan.kernel_size,
                "stride": plan.stride,
                "dilation": plan.dilation,
                "padding": plan.padding,
                "output_bytes": plan.output_bytes,
                "workspace_bytes": plan.workspace_bytes,
            }
        else:
            shape = plan.input_shape if "dx" in results else plan.output_shape
            members = {"shape": shape, "dtype": NAMES[plan.dtype]}
        return [*encode({**results, **members}, self.form)], self.wanted, {}

    def told(self, error: Exception) -> Problem:
        """Return an error's problem, with pointers only into a body that is JSON."""
        problem = problem_of(error)
        if self.given == npy.MEDIA_TYPE:
            problem.errors = ()
        return problem


def _of_query(query: str) -> dict[str, Any]:
    """Return a query's parameters."""
    found: dict[str, Any] = {}
    try:
        # More than there are names of anything; `parse_qsl` counts before it copies.
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:
        raise Problem(400, "the query is no list of name=value of UTF-8") from None
    for name, text in pairs:
        if name in found:
            raise refused("", f"the query has {show(name)} more than once")
        found[name] = from_text(text)
    return found
