"""PyTorch, in its contiguous and its channels-last memory format."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared:
    """Return the run of a case; gradients are the functions that autograd itself calls."""
    torch.set_num_threads(case.threads)
    w = case.workload
    # A series has no channels-last format, and its gradient is a plane's: a plane of unit width.
    series = len(w.spatial) == 1
    dims = 2 if series else len(w.spatial)
    size, stride, padding = w.size, [w.stride] * len(w.size), [w.padding] * len(w.size)
    if series:
        size, stride, padding = (*size, 1), [*stride, 1], [*padding, 0]

    def tensor(array: Array) -> Any:
        given = torch.from_numpy(array)
        if case.layout == "channels_last":
            given = given.movedim(-1, 1)
        return given.unsqueeze(-1) if series else given

    def array(given: Any) -> Array:
        result = given.squeeze(-1) if series else given
        if case.layout == "channels_last":
            result = result.movedim(1, -1)
        return result.contiguous().numpy()  # type: ignore[no-any-return]

    tx, tdy = map(tensor, case.data())
    aten = torch.ops.aten
    run: partial[Any]
    if w.op == "max":
        pool = getattr(F, f"max_pool{dims}d")
        forward = partial(pool, tx, size, stride, padding, return_indices=case.kind != "forward")
        run = forward
        if case.kind == "backward":
            gradient = getattr(aten, f"max_pool{dims}d_with_indices_backward")
            run = partial(gradient, tdy, tx, size, stride, padding, [1] * dims, False, forward()[1])
    elif w.op == "adaptive" or w.whole:
        # Of one window: the mean, whose gradient is a broadcast; it is the quicker one.
        output = w.output
        run = partial(F.adaptive_avg_pool2d, tx, output)
        if case.kind == "backward":
            gradient = aten._adaptive_avg_pool2d_backward
            run = partial(gradient, tdy, tx)
    else:
        run = partial(getattr(F, f"avg_pool{dims}d"), tx, size, stride, padding)
        if case.kind == "backward":
            gradient = getattr(aten, f"avg_pool{dims}d_backward")
            run = partial(gradient, tdy, tx, size, stride, padding, False, True, None)

    def arrays(result: Any) -> tuple[Array, ...]:
        return tuple(map(array, result if isinstance(result, tuple) else (result,)))

    return Prepared({"PyTorch": run}, arrays)
