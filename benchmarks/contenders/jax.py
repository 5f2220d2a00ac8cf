"""JAX: `reduce_window`, compiled, in the layout of the case."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case, x: Array, dy: Array) -> Prepared | None:
    """Return the compiled run of a case; the gradient of a maximum finds it again in x."""
    w = case.workload
    if w.op == "adaptive":
        return None
    window = case.spread(w.size, 1, 1), case.spread(w.stride, 1, 1)
    padding = case.spread([(w.padding, w.padding)] * len(w.size), (0, 0), (0, 0))

    def pool(x: Any) -> Any:
        if w.op == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, *window, padding)
        if w.whole:
            return x.mean(case.axes, keepdims=True)
        return lax.reduce_window(x, 0.0, lax.add, *window, padding) / w.taps

    def pool_argmax(x: Any) -> Any:
        cells = np.arange(np.prod(w.spatial), dtype=np.int32)
        position = jnp.broadcast_to(cells.reshape(case.spread(w.spatial, 1, 1)), x.shape)

        def larger(a: Any, b: Any) -> Any:
            first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
            return tuple(jnp.where(first, p, q) for p, q in zip(a, b, strict=True))

        start = -jnp.inf, np.int32(np.iinfo(np.int32).max)
        return lax.reduce_window((x, position), start, larger, *window, padding)

    jx, jdy = jnp.asarray(x), jnp.asarray(dy)
    if case.kind == "backward":
        compiled = jax.jit(lambda x, dy: jax.vjp(pool, x)[1](dy)).lower(jx, jdy).compile()
        given = jx, jdy
    else:
        chosen = pool if case.kind == "forward" else pool_argmax
        compiled, given = jax.jit(chosen).lower(jx).compile(), (jx,)

    def arrays(result: Any) -> tuple[Array, ...]:
        return tuple(map(np.asarray, result if isinstance(result, (tuple, list)) else (result,)))

    return Prepared({"JAX": lambda: jax.block_until_ready(compiled(*given))}, arrays)
