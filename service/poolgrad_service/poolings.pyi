from collections.abc import Awaitable, Sequence
from typing import Literal, overload

from poolgrad.arrays import Array
from poolgrad.functional import Layout, OutputSize, Padding, Size

__all__ = ["AsyncPoolings", "Poolings"]

class Poolings:
    url: str
    format: Literal["binary", "json"]
    def __init__(self, url: str, format: Literal["binary", "json"]) -> None: ...
    @overload
    def max_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        return_argmax: Literal[False] = False,
    ) -> Array: ...
    @overload
    def max_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        return_argmax: Literal[True],
    ) -> tuple[Array, Array]: ...
    def max_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        argmax: Array | None = None,
    ) -> Array: ...
    def avg_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Array: ...
    def avg_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Array: ...
    @overload
    def adaptive_max_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        return_argmax: Literal[False] = False,
    ) -> Array: ...
    @overload
    def adaptive_max_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        return_argmax: Literal[True],
    ) -> tuple[Array, Array]: ...
    def adaptive_max_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        argmax: Array | None = None,
    ) -> Array: ...
    def adaptive_avg_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
    ) -> Array: ...
    def adaptive_avg_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
    ) -> Array: ...

class AsyncPoolings:
    url: str
    format: Literal["binary", "json"]
    def __init__(self, url: str, format: Literal["binary", "json"]) -> None: ...
    @overload
    def max_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        return_argmax: Literal[False] = False,
    ) -> Awaitable[Array]: ...
    @overload
    def max_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        return_argmax: Literal[True],
    ) -> Awaitable[tuple[Array, Array]]: ...
    def max_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        argmax: Array | None = None,
    ) -> Awaitable[Array]: ...
    def avg_pool(
        self,
        x: Array,
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Awaitable[Array]: ...
    def avg_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        kernel_size: Size,
        *,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        layout: Layout = "channels_last",
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Awaitable[Array]: ...
    @overload
    def adaptive_max_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        return_argmax: Literal[False] = False,
    ) -> Awaitable[Array]: ...
    @overload
    def adaptive_max_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        return_argmax: Literal[True],
    ) -> Awaitable[tuple[Array, Array]]: ...
    def adaptive_max_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
        argmax: Array | None = None,
    ) -> Awaitable[Array]: ...
    def adaptive_avg_pool(
        self,
        x: Array,
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
    ) -> Awaitable[Array]: ...
    def adaptive_avg_pool_backward(
        self,
        dy: Array,
        x: Array | Sequence[int],
        output_size: OutputSize,
        *,
        layout: Layout = "channels_last",
    ) -> Awaitable[Array]: ...
