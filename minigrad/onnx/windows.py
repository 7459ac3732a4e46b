"""Operators whose windows slide over images (N, C, H, W): convolution and pooling.

See operators.py for what a handler is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from ..base.arguments import Padding, Pair
from ..errors import ShapeError
from ..ops._windows import frame, output_shape, padded, taps
from ..tensor import Tensor
from .operators import Call, Value, operator


def _padding(call: Call, x: Tensor, kernel: Sequence[int], stride: Pair, dilation: Pair) -> Padding:
    """((top, bottom), (left, right)) of pads or auto_pad."""
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        top, left, bottom, right = _four(call, call.get("pads", [0, 0, 0, 0]))
        return (top, bottom), (left, right)
    if auto == "VALID":
        return (0, 0), (0, 0)
    pads = []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        pads.append((total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2))
    return pads[0], pads[1]


def _four(call: Call, pads: Sequence[int]) -> Sequence[int]:
    if len(pads) != 4:
        raise ShapeError(f"pads={list(pads)}: only images (N, C, H, W) are computed, with two axes to slide along")
    return pads


def _images(x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError(f"x must be images (N, C, H, W), it has {x.ndim} axes: {x.shape}: reshape them")


def _pair(call: Call, name: str, default: Pair = (1, 1)) -> Pair:
    down, across = call.get(name, default)
    return down, across


@operator("Conv", "auto_pad dilations group kernel_shape pads strides")
def conv(call: Call, x: Value, w: Value, b: Value = None) -> Tensor:
    x, w = call.tensor(x), call.tensor(w)
    _images(x)
    stride, dilation = _pair(call, "strides"), _pair(call, "dilations")
    padding = _padding(call, x, w.shape[2:], stride, dilation)
    return F.conv2d(x, w, None if b is None else call.tensor(b), stride, padding, dilation, call.get("group", 1))


@operator("ConvTranspose", "auto_pad dilations group kernel_shape output_padding output_shape pads strides")
def conv_transpose(call: Call, x: Value, w: Value, b: Value = None) -> Tensor:
    """Where the size of the output is given (output_shape, auto_pad), so are the sums of the pads on both sides.

    The larger half is at the end for SAME_UPPER, and else at the beginning.
    """
    x, w = call.tensor(x), call.tensor(w)
    _images(x)
    stride, dilation, more = _pair(call, "strides"), _pair(call, "dilations"), _pair(call, "output_padding", (0, 0))
    wanted, auto = call.get("output_shape"), call.get("auto_pad", "NOTSET")
    padding = _padding(call, x, w.shape[2:], stride, dilation)
    if wanted is not None or auto.startswith("SAME"):
        sizes = zip(x.shape[2:], w.shape[2:], stride, dilation, more, wanted[-2:] if wanted else (None, None))
        totals = [s * (n - 1) + d * (k - 1) + 1 + m - (size or n * s) for n, k, s, d, m, size in sizes]
        more = tuple(m + max(-total, 0) for m, total in zip(more, totals))
        firsts = [max(total + (auto != "SAME_UPPER"), 0) // 2 for total in totals]
        down, across = ((first, max(total, 0) - first) for first, total in zip(firsts, totals))
        padding = down, across
    bias = None if b is None else call.tensor(b)
    return F.conv_transpose2d(x, w, bias, stride, padding, more, call.get("group", 1), dilation)


@operator("MaxPool", "auto_pad ceil_mode dilations kernel_shape pads storage_order strides")
def max_pool(call: Call, x: Value) -> Any:
    x, kernel = call.tensor(x), tuple(call.get("kernel_shape"))
    _images(x)
    stride, dilation = _pair(call, "strides"), _pair(call, "dilations")
    padding = _padding(call, x, kernel, stride, dilation)
    y = F.max_pool2d(x, kernel, stride, padding, dilation, bool(call.get("ceil_mode", 0)))
    if not call.node.wants(1):
        return y
    windows = kernel, stride, dilation, y.shape[2:]
    return y, _places_of_maxima(x.numpy(), padding, windows, by_columns=bool(call.get("storage_order", 0)))


def _places_of_maxima(x: np.ndarray, padding: Padding, windows: Any, by_columns: bool) -> np.ndarray:
    """Where in all of x, as one row of numbers, the first maximum of each window lies."""
    n, c, h, w = x.shape
    around = frame(padding, (h, w), *windows)
    numbers = np.arange(h * w).reshape((1, 1, w, h)).swapaxes(2, 3) if by_columns else np.arange(h * w)
    values, places = (
        np.stack([seen for _, _, seen in taps(padded(image, around, outside), *windows)], -1)
        for image, outside in ((x, -np.inf), (numbers.reshape(1, 1, h, w), -1))
    )
    inside = np.where(places < 0, -np.inf, values)
    within = np.take_along_axis(np.broadcast_to(places, values.shape), inside.argmax(-1)[..., None], -1)[..., 0]
    return within + (h * w * np.arange(n * c)).reshape(n, c, 1, 1)


@operator("AveragePool", "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides")
def average_pool(call: Call, x: Value) -> Tensor:
    x, kernel = call.tensor(x), tuple(call.get("kernel_shape"))
    _images(x)
    stride, dilation = _pair(call, "strides"), _pair(call, "dilations")
    padding = _padding(call, x, kernel, stride, dilation)
    ceil, count = bool(call.get("ceil_mode", 0)), bool(call.get("count_include_pad", 0))
    if dilation == (1, 1):
        return F.avg_pool2d(x, kernel, stride, padding, ceil, count)
    # A convolution of each channel with ones, divided by how many pixels it has met.
    outputs = output_shape("AveragePool", x.shape, kernel, stride, padding, dilation, ceil)
    around, channels = frame(padding, x.shape[2:], kernel, stride, dilation, outputs), x.shape[1]
    ones = Tensor(np.ones((channels, 1, *kernel)), device=x.device, dtype=x.dtype)
    counted = np.pad(np.ones((1, 1, *x.shape[2:])), ((0, 0), (0, 0), *padding), constant_values=float(count))
    more = (0, around[0][1] - padding[0][1]), (0, around[1][1] - padding[1][1])
    met = F.conv2d(Tensor(counted, device=x.device, dtype=x.dtype), ones[:1], None, stride, more, dilation)
    return F.conv2d(x, ones, None, stride, around, dilation, channels) / met


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Value) -> Tensor:
    x = call.tensor(x)
    return F.mean(x, tuple(range(2, x.ndim)), keepdims=True)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Value) -> Tensor:
    x = call.tensor(x)
    return F.max(x, tuple(range(2, x.ndim)), keepdims=True)
