"""OpenVINO, whose poolings are channels-first, without gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset8

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared | None:
    """Return the run of a model with one node, whose results stay in its own memory."""
    w = case.workload
    if case.layout != "channels_first" or case.kind == "backward":
        return None
    x, _ = case.data()
    given = opset8.parameter(x.shape, np.float32)
    pads, strides = [w.padding] * len(w.size), [w.stride] * len(w.size)
    if w.op == "adaptive":
        node = opset8.adaptive_avg_pool(given, np.array(w.size, np.int64))
    elif w.op == "average":
        node = opset8.avg_pool(given, strides, pads, pads, w.size, exclude_pad=False)
    else:
        node = opset8.max_pool(
            given, strides, [1] * len(w.size), pads, pads, w.size, index_element_type="i32", axis=2
        )
    outputs = node.outputs()[: 2 if case.kind == "argmax" else 1]
    config = {
        "INFERENCE_NUM_THREADS": case.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = ov.Core().compile_model(ov.Model(outputs, [given]), "CPU", config)
    run = partial(model.create_infer_request().infer, [x], share_inputs=True, share_outputs=True)

    def arrays(result: Any) -> tuple[Array, ...]:
        return tuple(np.array(result[k]) for k in range(len(outputs)))

    return Prepared({"OpenVINO": run}, arrays)
