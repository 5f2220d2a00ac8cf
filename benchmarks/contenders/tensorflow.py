"""TensorFlow, whose poolings on a CPU are channels-last."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared | None:
    """Return the run of a case.

    Averages do not count padding there, the argmax knows no explicit padding and no volumes, and
    the gradient of a volume takes all that is within 1e-5 of a maximum for one: those are left out.
    """
    w = case.workload
    if case.layout != "channels_last" or w.op == "adaptive" or (w.op != "max" and w.padding):
        return None
    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    series, volume = len(w.spatial) == 1, len(w.spatial) == 3
    if volume and case.kind != "forward":
        return None
    tail = (1,) if series else ()  # a series is a plane of unit width
    how: dict[str, Any] = {
        "ksize": [1, *w.size, *tail, 1],
        "strides": [1, *[w.stride] * len(w.size), *tail, 1],
        "padding": "VALID",
    }
    if w.padding:
        if w.centred:
            how["padding"] = "SAME"
        elif case.kind == "argmax":
            return None
        else:
            pads = [0, 0, *[w.padding] * 4, 0, 0]
            how |= {"padding": "EXPLICIT", "explicit_paddings": pads}
    tx, tdy = (tf.constant(a[:, :, None] if series else a) for a in case.data())
    raw, suffix = tf.raw_ops, "3D" if volume else ""
    run: partial[Any]
    if w.op == "max":
        pool = partial(getattr(raw, f"MaxPool{suffix}"), input=tx, **how)
        if case.kind == "argmax":
            run = partial(raw.MaxPoolWithArgmax, input=tx, **how)
        elif case.kind == "backward":
            run = partial(raw.MaxPoolGrad, orig_input=tx, orig_output=pool(), grad=tdy, **how)
        else:
            run = pool
    elif case.kind == "forward":
        run = (
            partial(tf.reduce_mean, tx, case.axes, keepdims=True)
            if w.whole
            else partial(getattr(raw, f"AvgPool{suffix}"), value=tx, **how)
        )
    else:
        run = partial(raw.AvgPoolGrad, orig_input_shape=tx.shape.as_list(), grad=tdy, **how)

    def arrays(result: Any) -> tuple[Array, ...]:
        if case.kind == "argmax":
            y, argmax = (part.numpy().reshape(case.output_shape) for part in result)
            return y, argmax // w.channels
        shape = case.input_shape if case.kind == "backward" else case.output_shape
        return (np.reshape(result.numpy(), shape),)

    return Prepared({"TensorFlow": run}, arrays)
