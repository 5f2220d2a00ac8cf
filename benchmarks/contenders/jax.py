"""JAX, compiled: as `reduce_window`, and for small windows of a maximum also as slices."""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case

#: Slices of more taps take minutes to compile.
MOST_SLICES = 25


def prepare(case: Case) -> Prepared | None:
    """Return the compiled runs of a case; the gradient of a maximum finds it again in x."""
    w = case.workload
    if w.op == "adaptive":
        return None
    window, strides = case.spread(w.size, 1, 1), case.spread(w.stride, 1, 1)
    padding = case.spread([(w.padding, w.padding)] * len(w.size), (0, 0), (0, 0))
    position = jnp.arange(prod(w.spatial), dtype=jnp.int32).reshape(case.spread(w.spatial, 1, 1))

    def larger(a: Any, b: Any) -> Any:
        if case.kind != "argmax":
            return jnp.maximum(a, b)
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        return tuple(jnp.where(first, p, q) for p, q in zip(a, b, strict=True))

    def pool(x: Any) -> Any:
        if w.op == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
        if w.whole:
            return x.mean(case.axes, keepdims=True)
        return lax.reduce_window(x, 0.0, lax.add, window, strides, padding) / w.taps

    def pool_argmax(x: Any) -> Any:
        start = -jnp.inf, np.int32(np.iinfo(np.int32).max)
        given = x, jnp.broadcast_to(position, x.shape)
        return lax.reduce_window(given, start, larger, window, strides, padding)

    def pool_slices(x: Any) -> Any:
        def taps(x: Any, beyond: Any) -> list[Any]:
            if w.padding:
                # Fused into the slices, padding would be computed for each tap.
                x = lax.optimization_barrier(jnp.pad(x, padding, constant_values=beyond))
            found = []
            for first in product(*map(range, case.spread(w.size, 1, 1))):
                ends = [
                    start + (windows - 1) * step + 1 if axis in case.axes else cells
                    for axis, (start, windows, step, cells) in enumerate(
                        zip(first, case.output_shape, strides, x.shape, strict=True)
                    )
                ]
                found.append(lax.slice(x, first, ends, strides))
            return found

        values = taps(x, -jnp.inf)
        if case.kind == "argmax":
            return reduce(larger, zip(values, taps(position, 0), strict=True))
        return reduce(larger, values)

    jx, jdy = map(jnp.asarray, case.data())
    given: tuple[Any, ...]
    if case.kind == "backward":
        compiled = [jax.jit(lambda x, dy: jax.vjp(pool, x)[1](dy)).lower(jx, jdy).compile()]
        given = jx, jdy
    else:
        ways = [pool_argmax if case.kind == "argmax" else pool]
        if w.op == "max" and w.taps <= MOST_SLICES:
            ways.append(pool_slices)
        compiled, given = [jax.jit(way).lower(jx).compile() for way in ways], (jx,)

    def arrays(result: Any) -> tuple[Array, ...]:
        return tuple(map(np.asarray, result if isinstance(result, (tuple, list)) else (result,)))

    runs = {
        label: lambda call=call: jax.block_until_ready(call(*given))
        for label, call in zip(("JAX", "JAX slices"), compiled, strict=False)
    }
    return Prepared(runs, arrays)
