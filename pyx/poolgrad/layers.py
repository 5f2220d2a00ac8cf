"""`Pool2D`, the pooling layer of networks that are written from scratch in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from poolgrad.arrays import DTYPES, Array
from poolgrad.errors import DtypeError, ParameterError, ShapeError, show
from poolgrad.geometry import integer, per_axis
from poolgrad.plan import Plan, plan

__all__ = ["Pool2D"]

Pad: TypeAlias = int | tuple[int, int, int, int] | Literal["same", "valid"]


class Pool2D:
    """A two-dimensional pooling layer on (N, H, W, C) arrays, with forward and backward.

    It differs from `max_pool` and `avg_pool` in its padding, which consists of real zeros: they
    take part in the maximum, and an average counts them.

    Parameters
    ----------
    kernel_shape : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), default 1
        Cells from window to window.
    pad : int, (int, int, int, int), "same" or "valid", default 0
        Zeros around each image: on all sides; as (top, bottom, left, right); ``"same"``: so many
        that the output has the input's size at every stride, the odd one at the bottom and right;
        ``"valid"``: none.
    mode : {"max", "average"}
        What to take of each window.
    optimizer : object, optional
        Kept in `hyperparams` and not used, since there are no parameters to learn.

    Raises
    ------
    ParameterError
        If an argument is of the wrong kind or out of its range.

    Examples
    --------
    >>> import numpy as np, poolgrad as pg
    >>> layer = pg.Pool2D(kernel_shape=(2, 2), stride=2)
    >>> X = np.array([[1, 2, 5, 6], [3, 4, 8, 7]], np.float32).reshape(1, 2, 4, 1)
    >>> layer.forward(X).ravel()
    array([4., 8.], dtype=float32)
    >>> layer.backward(np.ones((1, 1, 2, 1), np.float32))[0, :, :, 0]
    array([[0., 0., 0., 0.],
           [0., 1., 1., 0.]], dtype=float32)
    """

    def __init__(
        self,
        kernel_shape: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        pad: Pad = 0,
        mode: Literal["max", "average"] = "max",
        optimizer: Any = None,
    ) -> None:
        self.kernel_shape = per_axis("kernel_shape", kernel_shape, 2)
        self.stride = stride
        self._stride = per_axis("stride", stride, 2)
        self.pad = pad
        self._padding = _padding(pad)
        if not isinstance(mode, str) or mode not in ("max", "average"):
            raise ParameterError(f"mode: {show(mode)} is not 'max' or 'average'")
        self.mode = mode
        self.optimizer = optimizer
        self.in_ch: int | None = None
        self.out_ch: int | None = None
        self._stored: list[tuple[Plan, Array | None]] = []

    def __repr__(self) -> str:
        """Return the call that makes such a layer."""
        return (
            f"Pool2D(kernel_shape={self.kernel_shape!r}, stride={self.stride!r}, "
            f"pad={self.pad!r}, mode={self.mode!r})"
        )

    @property
    def hyperparams(self) -> dict[str, Any]:
        """The layer's settings as a dict; the channels are None before the first forward."""
        return {
            "layer": "Pool2D",
            "acti_fn": None,
            "pad": self.pad,
            "mode": self.mode,
            "in_ch": self.in_ch,
            "out_ch": self.out_ch,
            "stride": self.stride,
            "kernel_shape": self.kernel_shape,
            "optimizer": self.optimizer,
        }

    def forward(self, X: Array, retain_derived: bool = True) -> Array:
        """Pool a batch of images.

        Parameters
        ----------
        X : ndarray of shape (N, H, W, C)
            float32 or float64; other real dtypes are taken as float64.
        retain_derived : bool, default True
            Store what `backward` needs, beside what earlier calls have stored. `flush_gradients`
            forgets it; without either, memory grows with each call.

        Returns
        -------
        Y : ndarray of shape (N, H', W', C)

        Raises
        ------
        ShapeError, ParameterError, DtypeError
            If X is no such array, or a window does not fit into it.
        """
        X = _as_float("X", X)
        if X.ndim != 4:
            raise ShapeError(f"X: shape {show(X.shape)} has {X.ndim} axes; (N, H, W, C) is needed")
        made = plan(
            "max_pool" if self.mode == "max" else "avg_pool",
            X.shape,
            X.dtype,
            kernel_size=self.kernel_shape,
            stride=self._stride,
            padding=self._padding,
        )
        Y: Array
        argmax: Array | None = None
        if self.mode == "max":
            Y, argmax = made.forward(X, return_argmax=True)
            made.zeros_take_part(Y, argmax)
        else:
            Y = made.forward(X)
        self.in_ch = self.out_ch = X.shape[-1]
        if retain_derived:
            self._stored.append((made, argmax))
        return Y

    def backward(self, dLdy: Array | list[Array], retain_grads: bool = True) -> Any:
        """Return the gradient with respect to the input of each stored forward.

        The stored forwards stay, so that `backward` can be called again.

        Parameters
        ----------
        dLdy : ndarray or list of ndarray
            The gradient with respect to Y; a list has one for each stored forward, in their order.
        retain_grads : bool, default True
            Without effect: there are no parameters whose gradients could be kept.

        Returns
        -------
        dX : ndarray or list of ndarray
            As `dLdy`: an array for an array, a list for a list.

        Raises
        ------
        ParameterError
            If there are not as many gradients as stored forwards.
        ShapeError, DtypeError
            If a gradient has not its forward's output shape, or is not real.
        """
        gradients = dLdy if isinstance(dLdy, list) else [dLdy]
        if len(gradients) != len(self._stored):
            raise ParameterError(
                f"dLdy: {len(gradients)} gradients for {len(self._stored)} stored forwards; give a "
                "list with one for each, or forget the stored ones with flush_gradients()"
            )
        dX = []
        for gradient, (made, argmax) in zip(gradients, self._stored, strict=True):
            dy = _as_float("dLdy", gradient).astype(made.dtype, copy=False)
            if dy.shape != made.output_shape:
                raise ShapeError(
                    f"dLdy: shape {show(dy.shape)}; {show(made.output_shape)} is needed"
                )
            dX.append(made.backward(dy, argmax=argmax))
        return dX if isinstance(dLdy, list) else dX[0]

    def flush_gradients(self) -> None:
        """Forget all stored forwards."""
        self._stored.clear()


def _padding(pad: object) -> Any:
    """Return the library's form of the layer's `pad`."""
    if isinstance(pad, str):
        if pad == "valid":
            return 0
        if pad == "same":
            return "same_size"
        raise ParameterError(f"pad: {show(pad)} is not 'same' or 'valid'")
    if isinstance(pad, (tuple, list)):
        if len(pad) != 4:
            raise ParameterError(
                f"pad: {show(pad)} has length {len(pad)}; (top, bottom, left, right) is needed"
            )
        top, bottom, left, right = (
            integer("pad", item, least=0, axis=side) for side, item in enumerate(pad)
        )
        return ((top, bottom), (left, right))
    return integer("pad", pad, least=0)


def _as_float(name: str, array: object) -> Array:
    """Return a real array as float32 if it is that, else as float64."""
    if isinstance(array, np.ma.MaskedArray):
        raise DtypeError(f"{name}: a masked array is not supported; fill it first")
    try:
        given = np.asarray(array)
    except ValueError as error:  # a ragged list
        raise ShapeError(f"{name}: {show(str(error))}") from None
    if given.dtype in DTYPES:
        return given
    if given.dtype.kind not in "biuf":
        raise DtypeError(f"{name}: dtype {show(str(given.dtype))}; a real dtype is needed")
    return given.astype(np.float64)
