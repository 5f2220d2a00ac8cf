"""XNNPACK through LiteRT: channels-last, without gradients or an argmax."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case


def prepare(case: Case) -> Prepared | None:
    """Return the run of a model with one node, whose result stays in its own memory."""
    w = case.workload
    if (
        case.layout != "channels_last"
        or case.kind != "forward"
        or w.op == "adaptive"
        or len(w.spatial) == 3
        or (w.padding and not (w.centred and w.op == "max"))
    ):
        return None
    x, _ = case.data()
    series = len(w.spatial) == 1  # a plane of unit width
    given = x[:, :, None] if series else x
    size, strides = (*w.size, *[1] * series), [w.stride, 1 if series else w.stride]

    def pool(x: Any) -> Any:
        if w.whole:
            return tf.reduce_mean(x, case.axes, keepdims=True)
        op = tf.nn.max_pool2d if w.op == "max" else tf.nn.avg_pool2d
        return op(x, size, strides, "SAME" if w.padding else "VALID")

    traced = tf.function(pool).get_concrete_function(tf.TensorSpec(given.shape, tf.float32))
    model = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    interpreter = Interpreter(model_content=model, num_threads=case.threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    output = interpreter.get_output_details()[0]["index"]

    def arrays(_: Any) -> tuple[Array, ...]:
        return (interpreter.get_tensor(output).reshape(case.output_shape),)

    return Prepared({"XNNPACK": interpreter.invoke}, arrays)
