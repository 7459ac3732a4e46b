"""The cases: every op and every entry point of kernels/ is in at least one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import functional as F
from ...base.grad_mode import no_grad
from ...tensor import Tensor
from . import bare, batch_norm, ladder, optimizers, tf32
from .case import Case, Shape, Shapes

MAPS = {"x": (128, 96, 55, 55)}  # what conv1 of AlexNet makes of 128 images
FEATURES = {"x": (128, 4096)}  # and fc6
LOGITS = {"x": (128, 1000)}

# ---------------------------------------------------------------- convolution


def _conv2d_flops(inputs: Shapes, y: Shape) -> int:
    return 2 * math.prod(y) * math.prod(inputs["w"][1:])


def _conv2d(name: str, small: Shapes, real: Shapes, **settings: Any) -> Case:
    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.conv2d(x, w, b, **settings)

    more: dict[str, Any] = {"flops": _conv2d_flops, "tolerance": 3e-5}
    return Case(f"conv2d, {name}", ("conv2d",), function, small, real, "x w b y", "dy x w dx dw db", **more)


# ---------------------------------------------------------------- the others


def _rooms(
    file: str, name: str, op: Callable[..., Tensor], small: Shape, backward: str = "dy x dx", **more: Any
) -> Case:
    """An op on maps (N, C, H, W)."""
    return Case(name, (file,), op, {"x": small}, MAPS, backward=backward, **more)


def _elementwise(name: str, op: Callable[..., Tensor], file: str, backward: str = "dy y dx", **more: Any) -> Case:
    return Case(name, (file,), op, {"x": (3, 7, 11, 13)}, MAPS, "x y", backward, **more)


def _broadcast(name: str, op: Callable[..., Tensor], backward: str, *files: str, **more: Any) -> Case:
    small, real = {"a": (3, 1, 11, 13), "b": (5, 1, 13)}, {"a": (128, 96, 55, 55), "b": (96, 1, 1)}
    return Case(name, ("arithmetic", *files), op, small, real, "a b y", backward, **more)


def _reduction(name: str, op: Callable[[Tensor], Tensor], small: Shape, backward: str = "dx", **more: Any) -> Case:
    return Case(name, ("reduce",), op, {"x": small}, {"x": (128, 96 * 55 * 55)}, backward=backward, **more)


def _linear(name: str, small: Shapes, rows: int, turned: bool = False) -> Case:
    """turned: the weight is given as (in, out), so that it lies along the outputs."""
    real = {"x": (rows, 9216), "weight": (9216, 4096) if turned else (4096, 9216), "bias": (4096,)}

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight.transpose(1, 0) if turned else weight, bias)

    def flops(inputs: Shapes, y: Shape) -> int:
        return 2 * math.prod(y) * inputs["x"][1]

    backward = "dy x weight dx dweight dbias"
    return Case(name, ("gemm",), function, small, real, "x weight bias y", backward, flops, tolerance=3e-5)


def _matmul(name: str, small: Shapes, real: Shapes, op: Callable[[Tensor, Tensor], Tensor] = F.matmul) -> Case:
    def flops(inputs: Shapes, y: Shape) -> int:
        return 2 * math.prod(y) * inputs["a"][-1]

    return Case(name, ("gemm",), op, small, real, "a b y", "dy a b da db", flops, tolerance=3e-5)


def _labels(x: Tensor) -> np.ndarray:
    n, classes = x.shape
    return (np.arange(n) * 7 + 3) % classes


def _relations(a: Tensor, b: Tensor) -> Tensor:
    b = F.concat([a[:2], b[2:]])  # equal in places
    return F.concat([a == b, a != b, a < b, a <= b, a > b, a >= b])


def _power_of_0(a: Tensor, b: Tensor) -> Tensor:
    """Half of the bases are 0; exponents are 0 and 2.5, and have gradients all the same."""
    return F.power(F.relu(a), b - b.detach() + (b > 0) * 2.5)


def _values(x: Tensor) -> Tensor:
    with no_grad():  # so forward need not note which number of a window was the largest
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


def _signs(x: Tensor) -> Tensor:
    """0 or 1, with x's gradient."""
    return x - x.detach() + (x > 0) * 1.0


def _integers(x: Tensor) -> Tensor:
    """Floats of all sizes, also far beyond what the integers hold."""
    far = x * Tensor(2.0 ** (np.arange(x.shape[-1]) % 80), device=x.device, dtype=x.dtype)
    return F.concat([F.astype(F.astype(far, to), "int64") for to in ("uint8", "int32", "int64", "uint64")])


def _assigned(x: Tensor) -> Tensor:
    y = x * 1.0
    with no_grad():
        y[[5, 0, 2]] = x[1:4]
        y[:2, ::3] = 7.0
    return y


def _pictures(x: Tensor) -> Tensor:
    """Pictures (N, H, W, 3) of numbers (N, H, W * 3 / 4), whose bytes they have: each gives four."""
    with no_grad():
        numbers = F.concat([x * 40 + middle for middle in (60, 100, 140, 180)], 2)
        return F.reshape(F.astype(numbers, "uint8"), (*x.shape[:2], -1, 3))


def _prepared(x: Tensor, mean: Tensor) -> Callable[[], Tensor]:
    """Two views of each picture, 7/8 of its height: anywhere in it, and the lower right one, mirrored."""
    images, mean = _pictures(x), F.astype(mean, "float32")
    n, height, width, _ = images.shape
    size = height * 7 // 8
    windows = [[(3 * i % (height - size), i % (width - size), 0), (height - size, width - size, 1)] for i in range(n)]
    colours = [(i, 0.5, -i) for i in range(n)]
    return lambda: F.prepare(images, windows, size, mean, colours, 1 / 58)


_ALL = [
    _conv2d(
        "conv1",
        {"x": (2, 3, 32, 27), "w": (67, 3, 11, 11), "b": (67,)},
        {"x": (128, 3, 224, 224), "w": (96, 3, 11, 11), "b": (96,)},
        stride=4,
        padding=((0, 3), (0, 3)),
    ),
    _conv2d(
        "conv2",
        {"x": (5, 10, 9, 7), "w": (6, 5, 5, 5), "b": (6,)},
        {"x": (128, 96, 27, 27), "w": (256, 48, 5, 5), "b": (256,)},
        padding=2,
        groups=2,
    ),
    _conv2d(
        "conv3",
        {"x": (2, 70, 7, 5), "w": (66, 70, 3, 3), "b": (66,)},
        {"x": (128, 256, 13, 13), "w": (384, 256, 3, 3), "b": (384,)},
        padding=1,
    ),
    _conv2d(
        "stride and dilation",
        {"x": (3, 3, 15, 13), "w": (67, 3, 5, 3), "b": (67,)},
        {"x": (128, 96, 27, 27), "w": (256, 96, 5, 5), "b": (256,)},
        stride=(2, 1),
        padding=((2, 1), (0, 2)),
        dilation=(1, 2),
    ),
    _conv2d(
        "pixels without taps",
        {"x": (2, 3, 10, 9), "w": (5, 3, 3, 2), "b": (5,)},
        {"x": (128, 96, 27, 27), "w": (256, 96, 3, 3), "b": (256,)},
        stride=(3, 2),
        padding=((1, 0), (2, 1)),
        dilation=(3, 2),
    ),
    *ladder.CASES,
    *tf32.CASES,
    _rooms("max_pool2d", "max_pool2d", lambda x: F.max_pool2d(x, 3, 2, padding=1), (2, 5, 23, 19), "dy dx"),
    _rooms("max_pool2d", "max_pool2d, 4 x 3", lambda x: F.max_pool2d(x, (4, 3), (3, 2), 1), (2, 5, 23, 19), "dy dx"),
    _rooms("max_pool2d", "max_pool2d, pixels left over", lambda x: F.max_pool2d(x, 3, 2), (2, 2, 11, 9), "dy dx"),
    _rooms(
        "max_pool2d",
        "max_pool2d, of equals",
        lambda x: F.max_pool2d(x - x.detach() + (x > 1) * 1.0, 3, 2, 1),
        (2, 3, 8, 9),
        "dy dx",
    ),
    _rooms("max_pool2d", "max_pool2d, 3 x 4", lambda x: F.max_pool2d(x, (3, 4), 2), (2, 2, 9, 12), "dy dx"),
    _rooms("max_pool2d", "max_pool2d, dilated down", lambda x: F.max_pool2d(x, 3, 2, 1, (2, 1)), (1, 2, 9, 7), "dy dx"),
    _rooms(
        "max_pool2d", "max_pool2d, dilated across", lambda x: F.max_pool2d(x, 3, 2, 1, (1, 2)), (1, 2, 7, 9), "dy dx"
    ),
    _rooms("max_pool2d", "max_pool2d, values", _values, (2, 5, 23, 18), ""),
    _rooms("avg_pool2d", "avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2), (2, 5, 22, 18), "dy dx"),
    _rooms("avg_pool2d", "avg_pool2d, 3 x 4", lambda x: F.avg_pool2d(x, (3, 4), 2), (2, 2, 9, 12), "dy dx"),
    _rooms("avg_pool2d", "avg_pool2d, 4 x 3", lambda x: F.avg_pool2d(x, (4, 3), (3, 2), 1), (2, 5, 22, 18), "dy dx"),
    _rooms(
        "avg_pool2d",
        "avg_pool2d, over the edge",
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True),
        (2, 5, 22, 18),
        "dy dx",
    ),
    _rooms(
        "avg_pool2d",
        "avg_pool2d, pixels only",
        lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True, count_include_pad=False),
        (2, 5, 22, 18),
        "dy dx",
    ),
    _rooms("lrn", "lrn, many channels", lambda x: F.lrn(x, 9, 2.0, 0.1, 0.75), (1, 71, 5, 7)),
    _rooms("lrn", "lrn, wide windows", lambda x: F.lrn(x, 75, 2.0, 0.1, 0.75), (1, 71, 5, 7)),
    _rooms("lrn", "lrn", lambda x: F.lrn(x, 5, 2.0, 0.1, 0.75), (2, 13, 9, 17)),
    _rooms("lrn", "lrn, beta 0.6", lambda x: F.lrn(x, 3, 1.0, 0.1, 0.6, groups=2), (2, 10, 5, 7)),
    _rooms("lrn_within_map", "lrn_within_map", lambda x: F.lrn_within_map(x, 5, 1.0, 0.1, 0.75), (2, 3, 37, 35)),
    _rooms(
        "lrn_within_map", "lrn_within_map, wide windows", lambda x: F.lrn_within_map(x, 19, 1.0, 0.1), (1, 2, 11, 13)
    ),
    _rooms(
        "lrn_within_map",
        "lrn_within_map, beta 0.6, whole tiles",
        lambda x: F.lrn_within_map(x, 3, 1.0, 0.1, 0.6),
        (1, 2, 30, 60),
    ),
    Case(
        "conv_transpose2d",
        ("conv2d", "reduce", "arithmetic"),
        lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), ((1, 0), (0, 2)), (1, 0), 2, (1, 2)),
        {"x": (3, 6, 7, 5), "w": (6, 5, 3, 4), "b": (10,)},
        {"x": (128, 256, 13, 13), "w": (256, 48, 4, 4), "b": (96,)},
        "x w b y",
        "dy x w dx dw db",
        lambda inputs, y: 2 * math.prod(inputs["x"]) * math.prod(inputs["w"][1:]),
        tolerance=3e-5,
    ),
    *batch_norm.CASES,
    _elementwise("relu", F.relu, "relu"),
    _elementwise("tanh", F.tanh, "tanh"),
    _elementwise("sigmoid", F.sigmoid, "sigmoid"),
    _elementwise("exp", F.exp, "pointwise"),
    _elementwise("log", F.log, "pointwise", "dy x dx", positive=True),
    _elementwise("sqrt", F.sqrt, "pointwise", positive=True),
    Case("dropout, p 0.5", ("dropout",), lambda x: F.dropout(x, 0.5), {"x": (23, 991)}, FEATURES, backward="dy dx"),
    Case("dropout, p 0.3", ("dropout",), lambda x: F.dropout(x, 0.3), {"x": (3, 991)}, FEATURES, backward="dy dx"),
    Case("dropout, not at 16 bytes", ("dropout",), lambda x: F.dropout(x[1:], 0.5), {"x": (1100,)}, FEATURES),
    Case("softmax", ("softmax",), lambda x: F.softmax(x), {"x": (5, 301)}, LOGITS),
    Case("softmax, axis 1", ("softmax",), lambda x: F.softmax(x, 1), {"x": (3, 5, 137)}, {"x": (128, 21, 3025)}),
    Case("log_softmax", ("softmax",), lambda x: F.log_softmax(x), {"x": (5, 301)}, LOGITS),
    Case(
        "cross_entropy",
        ("cross_entropy",),
        lambda x: F.cross_entropy(x, _labels(x)),
        {"x": (5, 301)},
        LOGITS,
        "x",
        "x dx",
    ),
    _linear("linear", {"x": (67, 70), "weight": (65, 70), "bias": (65,)}, 128),
    _linear("linear, few rows", {"x": (3, 301), "weight": (37, 301), "bias": (37,)}, 1),
    _linear("linear, few rows, turned", {"x": (3, 301), "weight": (301, 37), "bias": (37,)}, 1, turned=True),
    _linear("linear, a bias of many rows", {"x": (1100, 9), "weight": (11, 9), "bias": (11,)}, 1024),
    _matmul("matmul", {"a": (2, 70, 37), "b": (37, 67)}, {"a": (1, 4096, 4096), "b": (4096, 4096)}),
    _matmul("matmul, long sums", {"a": (33, 3001), "b": (3001, 35)}, {"a": (64, 290400), "b": (290400, 64)}),
    _matmul(
        "matmul, few rows of a batch",
        {"a": (3, 2, 1151), "b": (3, 1151, 127)},
        {"a": (8, 4, 9216), "b": (8, 9216, 512)},
    ),
    _matmul(
        "matmul, few rows of a batch, transposed",
        {"a": (3, 2, 2001), "b": (3, 23, 2001)},
        {"a": (8, 4, 9216), "b": (8, 512, 9216)},
        lambda a, b: F.matmul(a, b.transpose(0, 2, 1)),
    ),
    _broadcast("add", F.add, "dy da db"),
    _broadcast("subtract", F.subtract, "dy da db"),
    _broadcast("multiply", F.multiply, "dy a b da db"),
    _broadcast("divide", F.divide, "dy a b da db", "arithmetic_backward", positive=True),
    _broadcast("power", F.power, "dy a b da db", "arithmetic_backward", positive=True),
    _broadcast("power of 0", _power_of_0, "dy a b da db", "arithmetic_backward"),
    _elementwise("square", lambda x: F.power(x, 2.0), "arithmetic", "dy x dx"),
    _elementwise("cube", lambda x: F.power(x, 3.0), "arithmetic_backward", "dy x dx"),
    _elementwise("negative", lambda x: F.negative(x), "arithmetic", "dy dx"),
    _reduction("sum of rows", lambda x: F.sum(x, 1), (5, 1031)),
    _reduction("sum of columns", lambda x: F.sum(x, 0), (71, 67)),
    _reduction("sum", lambda x: F.sum(x), (71, 1067)),
    Case("mean", ("reduce",), lambda x: F.mean(x, (0, 2)), {"x": (3, 5, 307)}, {"x": (128, 96, 3025)}, backward="dx"),
    Case("sum of maps", ("reduce",), lambda x: F.sum(x, (0, 2, 3)), {"x": (7, 3, 13, 13)}, MAPS, backward="dx"),
    Case("max of maps", ("reduce",), lambda x: F.max(x, (0, 2, 3)), {"x": (7, 3, 13, 13)}, MAPS, backward="dy dx"),
    Case("sum of short runs", ("reduce",), lambda x: F.sum(x, (0, 2)), {"x": (99, 3, 5, 35)}, MAPS, backward="dx"),
    _reduction("max of rows", lambda x: F.max(x, 1), (7, 301), "dy dx"),
    _reduction("max of equals", lambda x: F.max(x - x.detach() + (x > 1) * 1.0, 1), (7, 301), "dy dx"),
    _reduction("sum of whole pieces", lambda x: F.sum(x, 1), (3, 2048)),
    _reduction("max of whole pieces", lambda x: F.max(x, 1), (3, 2048)),
    _reduction("mean of long rows", lambda x: F.mean(x, 1), (2, 20011)),
    _reduction("mean of long columns", lambda x: F.mean(x, 0), (20011, 2)),
    _reduction("max of columns", lambda x: F.max(x, 0), (71, 67), "dy dx"),
    _reduction("max", lambda x: F.max(x), (71, 1067), "dx"),
    _reduction("argmax", lambda x: F.argmax(x, 1), (7, 1301), ""),
    _reduction("argmin", lambda x: F.argmin(x, 0), (301, 67), ""),
    _reduction("sum of whole tiles of columns", lambda x: F.sum(x, 0), (300, 64)),
    _reduction("max of whole tiles of columns", lambda x: F.max(x, 0), (300, 64), "dy dx"),
    Case("max of few columns", ("reduce",), lambda x: F.max(x, 0), {"x": (9001, 3)}, {"x": (10**7, 3)}, backward="dx"),
    Case(
        "compare",
        ("compare", "copy"),
        _relations,
        {"a": (7, 301), "b": (7, 301)},
        {"a": (128, 290400), "b": (128, 290400)},
        "a b",
        "",
    ),
    Case(
        "concat",
        ("copy",),
        lambda a, b: F.concat([a, b], 1),
        {"a": (2, 3, 7, 5), "b": (2, 5, 7, 5)},
        {"a": (128, 128, 13, 13), "b": (128, 128, 13, 13)},
        "a b y",
        "views",
    ),
    _rooms("copy", "split", lambda x: F.concat(F.split(x, 1, 1)[::-1], 2), (2, 3, 7, 5), "dy dx"),
    _rooms("copy", "pad", lambda x: F.pad(x, ((0, 0), (0, 0), (2, 1), (0, 3))), (2, 3, 7, 5), "views"),
    _rooms("copy", "transpose", lambda x: F.transpose(x, 0, 2, 3, 1).flatten(1), (2, 37, 9, 5), "dy dx"),
    _rooms("copy", "transpose, whole tiles", lambda x: F.transpose(x, 0, 2, 3, 1).flatten(1), (2, 64, 8, 4), "dy dx"),
    _rooms("copy", "astype", lambda x: F.astype(F.astype(x, "float64"), "float32"), (2, 13, 7, 5), "dy dx"),
    Case("integers of floats", ("copy", "arithmetic"), _integers, {"x": (7, 301)}, {"x": (1000, 4096)}, "x y", ""),
    Case("getitem", ("shape",), lambda x: x[[5, 0, 5, 2]], {"x": (7, 301)}, {"x": (1000, 4096)}, "y y", "dy dx"),
    Case("assignment", ("shape", "copy"), _assigned, {"x": (7, 301)}, {"x": (1000, 4096)}, "x y", ""),
    Case(
        "prepare",
        ("prepare",),
        lambda x, mean: _prepared(x, mean)(),
        {"x": (2, 45, 36), "mean": (45, 48, 3)},
        {"x": (128, 256, 192), "mean": (256, 256, 3)},
        "x mean y",
        "",
        prepare=_prepared,
    ),
    *(
        Case(
            name,
            (name.split(",")[0] if name.startswith("where") else "extremes",),
            function,
            {"a": (3, 1, 11, 13), "b": (5, 1, 13)},
            {"a": (128, 96, 55, 55), "b": (96, 1, 1)},
            "a b y",
            "dy da db",
        )
        for name, function in [
            ("where", lambda a, b: F.where(a > b, a, b)),
            ("where, a condition that broadcasts", lambda a, b: F.where(b > 0, a, b)),
            ("maximum", lambda a, b: F.maximum(a, b)),
            ("minimum", lambda a, b: F.minimum(a, b)),
            (
                "maximum and minimum of equals",
                lambda a, b: F.maximum(_signs(a), _signs(b)) + F.minimum(_signs(a), _signs(b)),
            ),
        ]
    ),
    _elementwise("clip", lambda x: F.clip(x, -0.5, 1), "extremes", "dy x dx"),
    _elementwise("abs", F.abs, "extremes", "dy x dx"),
    _elementwise(
        "clip at its ends, and abs at 0", lambda x: F.clip(_signs(x), 0, 1) + F.abs(_signs(x)), "extremes", "dy x dx"
    ),
    *optimizers.CASES,
]

_ALL += [
    Case("peaks, copy", ("peaks",), bare.copied_packs, {"x": (12, 88)}, MAPS, backward=""),
    Case("peaks, multiply and add", ("peaks",), bare.multiplied_and_added, {"x": (6, 256)}, MAPS, "y", ""),
]

CASES: dict[str, Case] = {case.name: case for case in _ALL}


def cases_of(kernel: str) -> list[Case]:
    """The cases that run kernels/<kernel>.cu."""
    return [case for case in _ALL if kernel in case.kernels]
