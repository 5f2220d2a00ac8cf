"""Pool a photograph, and show where the gradient goes.

Every output of a pooling gets a gradient of 1 here, and the backward pass tells how much of it each
pixel of the photograph receives: a maximum sends all of it to the one pixel that won, an average
spreads it evenly. The pictures are written as PNG files.

    python examples/photo.py
    python examples/photo.py --image china --kernel-size 12 --stride 8 --padding 2
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

import poolgrad as pg

FloatArray = npt.NDArray[np.floating[Any]]
ByteArray = npt.NDArray[np.uint8]

MARGIN = 16
LABEL_HEIGHT = 50
DETAIL = 8  # the close-ups show an eighth of the photograph, eight times as large


@dataclass(frozen=True)
class Pooled:
    """What one pooling makes of the photograph, forward and backward."""

    output: FloatArray
    gradient: FloatArray


def pool(op: str, x: FloatArray, kernel_size: int, stride: int, padding: int) -> Pooled:
    """Pool a batch, print the plan, and send a gradient of 1 back from every output."""
    plan = pg.plan(op, x.shape, x.dtype, kernel_size=kernel_size, stride=stride, padding=padding)
    print(plan.explain(), end="\n\n")
    y = plan.forward(x)
    return Pooled(y[0], plan.backward(np.ones_like(y), x)[0])


def received(gradient: FloatArray) -> FloatArray:
    """Return how much gradient each pixel received, over its three colours."""
    amount: FloatArray = gradient.sum(axis=-1)
    return amount


def glow(photo: ByteArray, amount: FloatArray, full: float) -> ByteArray:
    """Let the photograph, dim and grey, glow red, yellow, then white where the gradient went."""
    # A root lifts the small amounts, or an average's even share could not be told from nothing.
    strength = np.sqrt(np.clip(amount / full, 0, 1))[..., np.newaxis] * 3
    fire = np.clip(strength - np.arange(3), 0, 1)
    grey = photo.mean(axis=-1, keepdims=True) / 255
    return to_bytes(0.3 * grey + fire)


def to_bytes(colours: FloatArray) -> ByteArray:
    """Round colours from 0 to 1 to what a PNG holds."""
    scaled: FloatArray = (np.clip(colours, 0, 1) * 255).round()
    return scaled.astype(np.uint8)


def close_up(pixels: ByteArray, size: tuple[int, int]) -> Image.Image:
    """Cut out the middle of a picture and enlarge it to ``size``, pixels staying squares."""
    height, width = (max(1, side // DETAIL) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    cut = Image.fromarray(pixels[top : top + height, left : left + width])
    return cut.resize(size, Image.Resampling.NEAREST)


def panel(tiles: list[list[tuple[str, str, Image.Image]]], size: tuple[int, int]) -> Image.Image:
    """Set pictures in rows, a title and a line of explanation above each."""
    columns = len(tiles[0])
    width, height = size
    sheet = Image.new(
        "RGB",
        (
            columns * (width + MARGIN) + MARGIN,
            len(tiles) * (height + LABEL_HEIGHT + MARGIN) + MARGIN,
        ),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    title_font, text_font = ImageFont.load_default(20), ImageFont.load_default(14)
    for row, line in enumerate(tiles):
        for column, (title, text, picture) in enumerate(line):
            left = MARGIN + column * (width + MARGIN)
            top = MARGIN + row * (height + LABEL_HEIGHT + MARGIN)
            draw.text((left, top), title, "black", title_font)
            draw.text((left, top + 26), text, "dimgray", text_font)
            # Outputs are smaller than the input: drawn equally large, their pixels show.
            shown = picture.resize(size, Image.Resampling.NEAREST)
            sheet.paste(shown, (left, top + LABEL_HEIGHT))
    return sheet


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Pool a photograph and show its gradient")
    parser.add_argument("--image", choices=("china", "flower"), default="flower")
    parser.add_argument("--kernel-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--stride", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--padding", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the example."""
    args = parse(argv)
    photo = load_sample_image(f"{args.image}.jpg")
    x = (photo[np.newaxis] / 255).astype(np.float32)
    geometry = args.kernel_size, args.stride, args.padding
    try:
        maximum = pool("max_pool", x, *geometry)
        average = pool("avg_pool", x, *geometry)
    except pg.PoolgradError as error:
        sys.exit(f"FAILED: {error}")

    by_max, by_average = received(maximum.gradient), received(average.gradient)
    # One scale for both, so that they can be compared; the brightest hundredth may be cut off.
    full = float(np.percentile(by_max[by_max > 0], 99, method="higher"))
    pictures = {
        "input": photo,
        "max": to_bytes(maximum.output),
        "average": to_bytes(average.output),
        "max_gradient": glow(photo, by_max, full),
        "average_gradient": glow(photo, by_average, full),
    }

    args.output.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(args.output / f"{name}.png")

    height, width = photo.shape[:2]
    size = width, height
    small = f"{maximum.output.shape[1]} x {maximum.output.shape[0]} pixels"
    winners = (by_max > 0).mean()
    reached = (by_average > 0).mean()
    shown = {name: Image.fromarray(pixels) for name, pixels in pictures.items()}
    details = {name: close_up(pixels, size) for name, pixels in pictures.items()}
    tiles = [
        [
            ("Photograph", f"{width} x {height} pixels", shown["input"]),
            ("Maximum", f"{small}: the brightest of each window", shown["max"]),
            ("Average", f"{small}: the mean of each window", shown["average"]),
        ],
        [
            ("The middle", f"enlarged {DETAIL} times, as on the right", details["input"]),
            (
                "Where the maximum's gradient went",
                f"{winners:.1%} of all pixels share it; white is {full:.0f} or more",
                details["max_gradient"],
            ),
            (
                "Where the average's gradient went",
                f"{reached:.1%} of all pixels share it; the same colours",
                details["average_gradient"],
            ),
        ],
    ]
    panel(tiles, size).save(args.output / "panel.png")

    outputs = maximum.output.size
    print(f"{outputs} outputs sent a gradient of 1 each. It arrived:")
    print(f"  maximum  {by_max.sum():10.1f} in all, on {winners:6.1%} of the pixels")
    print(f"  average  {by_average.sum():10.1f} in all, on {reached:6.1%} of the pixels")
    names = ", ".join(f"{name}.png" for name in (*pictures, "panel"))
    print(f"Wrote {names} to {os.path.relpath(args.output)}")


if __name__ == "__main__":
    main()
