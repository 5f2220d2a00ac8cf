"""ONNX Runtime, whose poolings on a CPU are channels-first, without gradients."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import onnxruntime
from onnx import TensorProto, helper

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case

OPSET = 22


def prepare(case: Case) -> Prepared | None:
    """Return the run of a session with one node."""
    w = case.workload
    if case.layout != "channels_first" or w.op == "adaptive" or case.kind == "backward":
        return None
    x, _ = case.data()
    dims = len(w.size)
    how: dict[str, Any] = {
        "kernel_shape": w.size,
        "strides": [w.stride] * dims,
        "pads": [w.padding] * 2 * dims,
    }
    op = "MaxPool"
    if w.op == "average":
        op, how = ("GlobalAveragePool", {}) if w.whole else (
            "AveragePool", how | {"count_include_pad": 1}
        )  # fmt: skip
    kinds = {"y": TensorProto.FLOAT}
    if case.kind == "argmax":
        kinds["argmax"] = TensorProto.INT64
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], list(kinds), **how)],
        "pooling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(n, k, case.output_shape) for n, k in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def arrays(result: Any) -> tuple[Array, ...]:
        y, *argmax = result
        return y, *(indices % prod(w.spatial) for indices in argmax)

    return Prepared({"ONNX Runtime": partial(session.run, None, {"x": x})}, arrays)
