"""Train a small convolutional network on handwritten digits, with the pooling done three ways.

Everything but the pooling is plain NumPy, forward and backward, in this one file. The pooling is

* ``poolgrad.Pool2D``,
* ``LoopPool2D``, the same layer as a loop over the windows, to check it and to time it, or
* ``HttpPool2D`` (with ``--url``), which asks a running Poolgrad service for outputs and gradients.

Whichever of them pools, the same steps end with the same weights, bit for bit; the run fails if
they do not, or if a full training names less than 95 % of the held-out digits rightly.

    python examples/digits.py
    python examples/digits.py --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import poolgrad as pg

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

BATCH = 64
HELD_OUT = 360
FULL_EPOCHS = 40
GOAL = 0.95
LEARNING_RATE = 0.05
MOMENTUM = 0.9


# ---------------------------------------------------------------------------------------------
# The pooling layers: three classes with the same three methods.
# ---------------------------------------------------------------------------------------------


class Pool(Protocol):
    """What the network asks of a pooling layer; ``poolgrad.Pool2D`` has it all."""

    def forward(self, X: FloatArray, /) -> FloatArray:
        """Pool a batch (N, H, W, C) and remember what the gradient needs."""

    def backward(self, dLdy: FloatArray, /) -> Any:
        """Turn the gradient at the output into that at the input (a list of them into a list)."""

    def flush_gradients(self) -> None:
        """Forget the remembered forward calls."""


class LoopPool2D:
    """``poolgrad.Pool2D`` from the definition: one NumPy call for each window.

    This is how a first layer is usually written. It is correct, and it is what the compiled layer
    is timed against.

    Parameters
    ----------
    kernel_shape : int or tuple of int
        Height and width of the window.
    stride : int or tuple of int
        Steps from one window to the next.
    pad : int, tuple of int, "same" or "valid"
        Zeros around the image: all sides, or (top, bottom, left, right), or so many that the
        output is as large as the input, or none. They take part in the maximum.
    mode : "max" or "average"
        What is taken of each window.
    """

    def __init__(
        self,
        kernel_shape: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        pad: int | tuple[int, int, int, int] | str = 0,
        mode: str = "max",
    ) -> None:
        self.kernel = (kernel_shape,) * 2 if isinstance(kernel_shape, int) else kernel_shape
        self.stride = (stride,) * 2 if isinstance(stride, int) else stride
        self.pad = pad
        self.mode = mode
        self._inputs: list[FloatArray] = []

    def forward(self, X: FloatArray, retain_derived: bool = True) -> FloatArray:
        """Pool a batch (N, H, W, C)."""
        x = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        if retain_derived:
            self._inputs.append(x)
        padded = self._padded(x)
        y = np.empty(self._output_shape(padded), x.dtype)
        for out, image, top, left, channel in self._windows(y.shape):
            window = self._window(padded, image, top, left, channel)
            y[out] = window.max() if self.mode == "max" else window.mean()
        return y

    def backward(self, dLdy: FloatArray | list[FloatArray]) -> FloatArray | list[FloatArray]:
        """Give the gradient of each remembered forward call: one array, or a list for a list."""
        grads = dLdy if isinstance(dLdy, list) else [dLdy]
        if len(grads) != len(self._inputs):
            raise ValueError(f"{len(grads)} gradients for {len(self._inputs)} stored forward calls")
        dxs = [self._gradient(dy, x) for dy, x in zip(grads, self._inputs, strict=True)]
        return dxs if isinstance(dLdy, list) else dxs[0]

    def flush_gradients(self) -> None:
        """Forget the remembered forward calls."""
        self._inputs.clear()

    def _gradient(self, dy: FloatArray, x: FloatArray) -> FloatArray:
        padded = self._padded(x)
        grad = np.zeros_like(padded)
        for out, image, top, left, channel in self._windows(dy.shape):
            if self.mode == "max":
                # argmax gives the first of equal values, row by row: that pixel takes it all.
                window = self._window(padded, image, top, left, channel)
                row, column = divmod(int(window.argmax()), self.kernel[1])
                grad[image, top + row, left + column, channel] += dy[out]
            else:
                window = self._window(grad, image, top, left, channel)
                window += dy[out] / window.size
        # What fell on the padding belongs to nobody.
        (above, _), (before, _) = self._pads(x.shape)
        height, width = x.shape[1:3]
        return grad[:, above : above + height, before : before + width].copy()

    def _windows(
        self, shape: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], int, int, int, int]]:
        """Yield, for each output, its index and where its window starts in the padded batch."""
        for out in itertools.product(*map(range, shape)):
            image, row, column, channel = out
            yield out, image, row * self.stride[0], column * self.stride[1], channel

    def _window(
        self, padded: FloatArray, image: int, top: int, left: int, channel: int
    ) -> FloatArray:
        height, width = self.kernel
        return padded[image, top : top + height, left : left + width, channel]

    def _padded(self, x: FloatArray) -> FloatArray:
        return np.pad(x, ((0, 0), *self._pads(x.shape), (0, 0)))

    def _pads(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        if isinstance(self.pad, tuple):
            return self.pad[:2], self.pad[2:]
        if isinstance(self.pad, int):
            return (self.pad, self.pad), (self.pad, self.pad)
        if self.pad == "valid":
            return (0, 0), (0, 0)
        # "same": the odd one goes below and to the right.
        totals = [
            max((size - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(shape[1:3], self.stride, self.kernel, strict=True)
        ]
        rows, columns = ((total // 2, total - total // 2) for total in totals)
        return rows, columns

    def _output_shape(self, padded: FloatArray) -> tuple[int, int, int, int]:
        images, height, width, channels = padded.shape
        rows = (height - self.kernel[0]) // self.stride[0] + 1
        columns = (width - self.kernel[1]) // self.stride[1] + 1
        return images, rows, columns, channels


class Service:
    """One kept-alive connection to a Poolgrad service, with nothing but the standard library."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"--url must look like http://127.0.0.1:8000, not {url!r}")
        secure = parts.scheme == "https"
        connection = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = connection(parts.hostname, parts.port, timeout=60)
        self._prefix = parts.path.rstrip("/")
        self.requests = 0

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST a JSON body and return the JSON reply; a refusal becomes a RuntimeError."""
        payload = json.dumps(body).encode()
        try:
            status, reply = self._send(route, payload)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A server may close an idle connection at any time. Pooling has no side effects, so
            # asking a second time is safe.
            self._connection.close()
            status, reply = self._send(route, payload)
        self.requests += 1
        if status != http.client.OK:
            # Errors are problem+json; a proxy in between may still answer with anything.
            raise RuntimeError(f"{route}: HTTP {status}: {reply[:500].decode(errors='replace')}")
        decoded: dict[str, Any] = json.loads(reply)
        return decoded

    def _send(self, route: str, payload: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", self._prefix + route, payload, headers)
        response = self._connection.getresponse()
        # Read to the end, or the connection cannot be used again.
        return response.status, response.read()


def encode(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Write an array as the service reads it: shape, dtype and its bytes in base64."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "base64": data}


def decode(message: dict[str, Any]) -> npt.NDArray[Any]:
    """Read an array that the service wrote."""
    dtype = np.dtype(message["dtype"])
    little = np.frombuffer(base64.b64decode(message["base64"]), dtype.newbyteorder("<"))
    return little.reshape(message["shape"]).astype(dtype)


class HttpPool2D:
    """Maximum pooling without padding, done by a Poolgrad service.

    Only small things are remembered between the two calls: the shape of the input, and for each
    window which of its pixels won (the argmax, one byte each), so ``x`` travels once.
    """

    def __init__(self, service: Service, kernel_size: int, stride: int) -> None:
        self._service = service
        self._geometry = {"kernel_size": kernel_size, "stride": stride, "padding": 0}
        self._forwards: list[dict[str, Any]] = []

    def forward(self, X: FloatArray) -> FloatArray:
        """Pool a batch (N, H, W, C)."""
        body = {"x": encode(X), **self._geometry, "return_argmax": True}
        reply = self._service.post("/v1/max_pool/forward", body)
        self._forwards.append({"x_shape": list(X.shape), "argmax": reply["argmax"]})
        return decode(reply["y"])

    def backward(self, dLdy: FloatArray) -> FloatArray:
        """Give the gradient of the one forward call that is remembered."""
        (stored,) = self._forwards
        body = {"dy": encode(dLdy), **stored, **self._geometry}
        return decode(self._service.post("/v1/max_pool/backward", body)["dx"])

    def flush_gradients(self) -> None:
        """Forget the remembered forward calls."""
        self._forwards.clear()


class TimedPool:
    """Count the seconds that another pooling layer takes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.seconds = 0.0

    def forward(self, x: FloatArray) -> FloatArray:
        """Pool a batch."""
        start = perf_counter()
        y = self._pool.forward(x)
        self.seconds += perf_counter() - start
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Give the gradient, and forget the forward call: the next batch brings its own."""
        start = perf_counter()
        dx: FloatArray = self._pool.backward(dy)
        self._pool.flush_gradients()
        self.seconds += perf_counter() - start
        return dx

    def flush_gradients(self) -> None:
        """Forget the remembered forward calls."""
        self._pool.flush_gradients()


# ---------------------------------------------------------------------------------------------
# The rest of the network, in plain NumPy. Arrays are (N, H, W, C), float32 throughout.
# ---------------------------------------------------------------------------------------------


class Dense:
    """A fully connected layer; images are flattened on the way in."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        scale = np.sqrt(2 / inputs)  # He: keeps the size of the signal through ReLU layers
        self.weight = (rng.standard_normal((inputs, outputs)) * scale).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)

    @property
    def params(self) -> list[FloatArray]:
        """The arrays that training changes."""
        return [self.weight, self.bias]

    def forward(self, x: FloatArray) -> FloatArray:
        """Multiply by the weights and add the bias."""
        self._shape = x.shape
        self._x = x.reshape(len(x), -1)
        y: FloatArray = self._x @ self.weight + self.bias
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        """Keep the gradients of the parameters and give that of the input."""
        self.grads = [self._x.T @ dy, dy.sum(axis=0)]
        dx: FloatArray = dy @ self.weight.T
        return dx.reshape(self._shape)


class Conv3x3:
    """A 3x3 convolution that keeps the image size: im2col, then one matrix product."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self._dense = Dense(rng, inputs * 9, outputs)

    @property
    def params(self) -> list[FloatArray]:
        """The arrays that training changes."""
        return self._dense.params

    @property
    def grads(self) -> list[FloatArray]:
        """Their gradients, after ``backward``."""
        return self._dense.grads

    def forward(self, x: FloatArray) -> FloatArray:
        """Lay out the 3x3 patch around each pixel as a row and multiply by the weights."""
        images, height, width, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        rows = patches.reshape(images * height * width, -1)
        return self._dense.forward(rows).reshape(images, height, width, -1)

    def backward(self, dy: FloatArray) -> FloatArray:
        """Send each patch's gradient back to the pixels that it was copied from."""
        images, height, width, channels = dy.shape
        rows = self._dense.backward(dy.reshape(-1, channels))
        patches = rows.reshape(images, height, width, -1, 3, 3)
        padded = np.zeros((images, height + 2, width + 2, patches.shape[3]), dy.dtype)
        for i, j in np.ndindex(3, 3):
            padded[:, i : i + height, j : j + width] += patches[..., i, j]
        return padded[:, 1:-1, 1:-1]


class Relu:
    """max(x, 0)."""

    def forward(self, x: FloatArray) -> FloatArray:
        """Clip at zero."""
        self._positive = x > 0
        return np.maximum(x, np.float32(0))

    def backward(self, dy: FloatArray) -> FloatArray:
        """Let the gradient through where the input was positive."""
        return dy * self._positive


class Network:
    """Conv 16 - pool - conv 32 - pool - dense 64 - dense 10, for 8x8 images."""

    def __init__(self, seed: int, make_pool: Callable[[], Pool]) -> None:
        rng = np.random.default_rng(seed)
        self.pools = [TimedPool(make_pool()) for _ in range(2)]
        self._weighted: list[Conv3x3 | Dense] = [
            Conv3x3(rng, 1, 16),
            Conv3x3(rng, 16, 32),
            Dense(rng, 2 * 2 * 32, 64),
            Dense(rng, 64, 10),
        ]
        conv1, conv2, dense1, dense2 = self._weighted
        pool1, pool2 = self.pools
        # 8x8 -> 4x4 -> 2x2
        self._layers = [conv1, Relu(), pool1, conv2, Relu(), pool2, dense1, Relu(), dense2]
        self._velocity = [np.zeros_like(p) for p in self.params]

    @property
    def params(self) -> list[FloatArray]:
        """Every array that training changes."""
        return [param for layer in self._weighted for param in layer.params]

    @property
    def pool_seconds(self) -> float:
        """How long the pooling has taken so far, forward and backward."""
        return sum(pool.seconds for pool in self.pools)

    def logits(self, x: FloatArray) -> FloatArray:
        """Run the network forward."""
        for layer in self._layers:
            x = layer.forward(x)
        return x

    def step(self, x: FloatArray, labels: IntArray, rate: float) -> float:
        """Learn from one batch and return its loss (softmax cross-entropy, before the step)."""
        logits = self.logits(x)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        picked = np.arange(len(labels)), labels
        grad = np.exp(log_p)
        grad[picked] -= 1
        grad /= np.float32(len(labels))
        for layer in reversed(self._layers):
            grad = layer.backward(grad)
        grads = [g for layer in self._weighted for g in layer.grads]
        for param, velocity, g in zip(self.params, self._velocity, grads, strict=True):
            velocity *= np.float32(MOMENTUM)
            velocity -= np.float32(rate) * g
            param += velocity
        return float(-log_p[picked].mean())

    def accuracy(self, x: FloatArray, labels: IntArray) -> float:
        """Return the share of the images that are named rightly."""
        right = 0
        for start in range(0, len(x), BATCH):
            batch = slice(start, start + BATCH)
            right += int((self.logits(x[batch]).argmax(axis=1) == labels[batch]).sum())
            for pool in self.pools:
                pool.flush_gradients()
        return right / len(x)

    def digest(self) -> str:
        """Return a SHA-256 of all weights: equal digests mean equal bits."""
        sha = hashlib.sha256()
        for param in self.params:
            sha.update(param.tobytes())
        return sha.hexdigest()


# ---------------------------------------------------------------------------------------------
# Data, training, report.
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """The data set in two parts; the held-out part is never trained on."""

    train_x: FloatArray
    train_y: IntArray
    test_x: FloatArray
    test_y: IntArray


@dataclass(frozen=True)
class Schedule:
    """How long to train, and the loops for how much of it."""

    seed: int
    steps: int
    loop_steps: int
    progress: bool


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood after so many steps."""

    steps: int
    seconds: float
    pool_seconds: float
    digest: str

    @property
    def pool_ms(self) -> float:
        """Milliseconds of pooling in one step."""
        return 1000 * self.pool_seconds / self.steps

    @property
    def pool_share(self) -> float:
        """How much of the whole training time was pooling."""
        return self.pool_seconds / self.seconds


def load() -> Digits:
    """Read scikit-learn's digits and hold some out, the same ones whatever the seed is."""
    bunch = load_digits()
    x = (bunch.images[..., np.newaxis] / 16).astype(np.float32)
    order = np.random.default_rng(2024).permutation(len(x))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(x[train], bunch.target[train], x[test], bunch.target[test])


def batches(count: int, steps: int, seed: int) -> Iterator[IntArray]:
    """Yield the indices of each batch, a new shuffle for each epoch."""
    rng = np.random.default_rng([seed, 1])
    per_epoch = count // BATCH
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(count)
        start = step % per_epoch * BATCH
        yield order[start : start + BATCH]


def train(
    network: Network, data: Digits, schedule: Schedule, name: str, steps: int
) -> dict[int, Checkpoint]:
    """Take the first steps of a schedule; say where they led after the loop's share and at the end.

    Parameters
    ----------
    network : Network
        Changed in place.
    data : Digits
        What it learns from.
    schedule : Schedule
        The whole training, which this may be only the beginning of.
    name : str
        Stands in front of the progress bar.
    steps : int
        How many steps to take.

    Returns
    -------
    dict of int to Checkpoint
        By the number of steps.
    """
    checkpoints = {}
    start = perf_counter()
    indices = batches(len(data.train_x), steps, schedule.seed)
    with tqdm(indices, name, steps, disable=not schedule.progress, unit="step") as bar:
        for done, batch in enumerate(bar, start=1):
            # The rate falls in a straight line, by the schedule's length and not by this run's.
            rate = LEARNING_RATE * (1 - (done - 1) / schedule.steps)
            loss = network.step(data.train_x[batch], data.train_y[batch], rate)
            if done % 10 == 0:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            if done in (steps, schedule.loop_steps):
                seconds = perf_counter() - start
                pool_seconds = network.pool_seconds
                checkpoints[done] = Checkpoint(done, seconds, pool_seconds, network.digest())
    return checkpoints


def against_loops(data: Digits, schedule: Schedule) -> float:
    """Train with Pool2D, and as far as is bearable with loops; compare, and return the accuracy."""
    network = Network(schedule.seed, lambda: pg.Pool2D((2, 2), stride=2, mode="max"))
    ours = train(network, data, schedule, "Pool2D    ", schedule.steps)
    accuracy = network.accuracy(data.test_x, data.test_y)
    report("Pool2D", ours[schedule.steps], accuracy)

    few = schedule.loop_steps
    loops = Network(schedule.seed, lambda: LoopPool2D((2, 2), stride=2, mode="max"))
    theirs = train(loops, data, schedule, "LoopPool2D", few)[few]
    extent = "all" if few == schedule.steps else "only the first"
    print(f"\nLoopPool2D ran {extent} {few} of these {schedule.steps} steps. Over these {few}:")
    compare("Pool2D", ours[few], "LoopPool2D", theirs)
    return accuracy


def against_service(data: Digits, schedule: Schedule, url: str) -> float:
    """Train over HTTP and then locally with Pool2D; compare, and return the accuracy."""
    with closing(Service(url)) as service:
        network = Network(schedule.seed, lambda: HttpPool2D(service, kernel_size=2, stride=2))
        remote = train(network, data, schedule, "HttpPool2D", schedule.steps)[schedule.steps]
        accuracy = network.accuracy(data.test_x, data.test_y)
    report("HttpPool2D", remote, accuracy)
    print(f"            {service.requests} requests to {url}, over one kept-alive connection")

    local = Network(schedule.seed, lambda: pg.Pool2D((2, 2), stride=2, mode="max"))
    ours = train(local, data, schedule, "Pool2D    ", schedule.steps)[schedule.steps]
    print(f"\nThe same {schedule.steps} steps with Pool2D in this process:")
    compare("Pool2D", ours, "HttpPool2D", remote)
    return accuracy


def report(name: str, end: Checkpoint, accuracy: float) -> None:
    """Print how a training ended."""
    print(f"{name:<11} {end.steps} steps in {end.seconds:.1f} s, held out: {accuracy:.1%} right")
    print(f"            weights sha256 {end.digest}")


def compare(name: str, ours: Checkpoint, other_name: str, other: Checkpoint) -> None:
    """Print two pooling times side by side, and insist on equal weights."""
    for title, run in ((name, ours), (other_name, other)):
        share = f"{run.pool_share:.0%} of the training time"
        print(f"  {title:<10} pooling took {run.pool_ms:9.3f} ms a step, {share}")
    print(f"  {other_name} pooled {other.pool_seconds / ours.pool_seconds:.0f} times as long")
    if ours.digest != other.digest:
        sys.exit(
            f"FAILED: after {ours.steps} steps the weights differ:\n"
            f"  {name:<10} {ours.digest}\n  {other_name:<10} {other.digest}"
        )
    print(f"  The weights are equal bit for bit, sha256 {ours.digest[:16]}...")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train on digits, with Poolgrad doing the pooling")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, default=FULL_EPOCHS, help="(default: %(default)s)")
    length.add_argument("--steps", type=int, help="steps of 64 images, instead of epochs")
    length.add_argument("--quick", action="store_true", help="the same as --steps 8")
    parser.add_argument(
        "--loop-steps", type=int, default=100, help="how many the loops do (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights and batches (default: %(default)s)"
    )
    parser.add_argument("--url", help="a running service, such as http://127.0.0.1:8000")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    args = parser.parse_args(argv)
    if args.quick:
        args.steps = 8
    if min(args.epochs, args.loop_steps, 1 if args.steps is None else args.steps) < 1:
        parser.error("--epochs, --steps and --loop-steps must be at least 1")
    if args.seed < 0:
        parser.error("--seed must not be negative")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the example."""
    args = parse(argv)
    data = load()
    per_epoch = len(data.train_x) // BATCH
    steps = args.epochs * per_epoch if args.steps is None else args.steps
    schedule = Schedule(args.seed, steps, min(args.loop_steps, steps), not args.no_progress)
    print(f"data        {len(data.train_x)} digits of 8x8 to train on, {HELD_OUT} held out")
    print("network     conv 16 - pool - conv 32 - pool - dense 64 - dense 10")
    try:
        # Products this small gain nothing from a second thread, and lose much on a busy machine;
        # with one, the weights' bits do not depend on how many there are.
        with threadpool_limits(1, user_api="blas"):
            if args.url is None:
                accuracy = against_loops(data, schedule)
            else:
                accuracy = against_service(data, schedule, args.url)
    except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
        if args.url is None:
            raise
        sys.exit(f"FAILED: the service at {args.url}: {error}")
    if steps < FULL_EPOCHS * per_epoch:
        print(f"\nA short run: the goal of {GOAL:.0%} was not checked.")
    elif accuracy < GOAL:
        sys.exit(f"FAILED: {accuracy:.1%} of the held-out digits are right, the goal is {GOAL:.0%}")


if __name__ == "__main__":
    main()
