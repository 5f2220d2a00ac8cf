"""OpenCV, whose filters are poolings of stride one over images."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks.contenders import Prepared
from benchmarks.workloads import Array, Case

#: With more, OpenCV 5 takes an image for an array of three axes.
MOST_CHANNELS = 128


def prepare(case: Case) -> Prepared | None:
    """Return the run of a case: image by image, and plane by plane if channels are first."""
    w = case.workload
    first = case.layout == "channels_first"
    if case.kind != "forward" or len(w.spatial) != 2 or w.op == "adaptive" or not w.centred:
        return None
    if not first and w.channels > MOST_CHANNELS:
        return None
    x, _ = case.data()
    cv2.setNumThreads(case.threads)
    images = x.reshape(-1, *w.spatial) if first else x
    if w.op == "max":
        run = partial(cv2.dilate, kernel=np.ones(w.size, np.uint8))
    else:
        run = partial(cv2.blur, ksize=w.size[::-1], borderType=cv2.BORDER_CONSTANT)

    def arrays(result: Any) -> tuple[Array, ...]:
        return (np.stack(result).reshape(case.output_shape),)

    return Prepared({"OpenCV": lambda: [run(image) for image in images]}, arrays)
