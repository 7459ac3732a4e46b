"""Every op's public function, under one roof: `import minigrad.functional as F; F.relu(x)`.

Importing this module also fills `OPS` (operators.py), from which tensors take their methods and operators.

What a few ops make together stands below, in their terms: leaky_relu, softplus, losses, var and std, stack,
adaptive_avg_pool2d.  It has no room and no kernel of its own, and its gradients are those of its ops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .base.arguments import integer, number, one_of, pair
from .errors import ArgumentError, DeviceError, ShapeError
from .ops._checks import axes_of, check_floating, check_rank, flag, normalized_axis
from .ops.arithmetic import add, divide, multiply, negative, power, subtract
from .ops.astype import astype
from .ops.avg_pool2d import avg_pool2d
from .ops.batch_norm import batch_norm
from .ops.compare import equal, greater, greater_equal, less, less_equal, not_equal
from .ops.concat import concat, split
from .ops.conv2d import conv2d, conv_transpose2d
from .ops.copy import copy
from .ops.cross_entropy import cross_entropy
from .ops.dropout import dropout
from .ops.extremes import abs, clip, maximum, minimum
from .ops.linear import linear
from .ops.lrn import lrn, lrn_within_map
from .ops.matmul import matmul
from .ops.max_pool2d import max_pool2d
from .ops.pad import pad
from .ops.pointwise import exp, log, sqrt
from .ops.prepare import prepare
from .ops.reduce import argmax, argmin, max, mean, sum
from .ops.relu import relu
from .ops.shape import flatten, getitem, reshape, transpose
from .ops.sigmoid import sigmoid
from .ops.softmax import log_softmax, softmax
from .ops.tanh import tanh
from .ops.where import where
from .tensor import Tensor, TensorLike, as_tensor

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "add",
    "argmax",
    "argmin",
    "astype",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "clip",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "copy",
    "cross_entropy",
    "divide",
    "dropout",
    "equal",
    "exp",
    "flatten",
    "getitem",
    "greater",
    "greater_equal",
    "l1_loss",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "log",
    "log_softmax",
    "lrn",
    "lrn_within_map",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "minimum",
    "mse_loss",
    "multiply",
    "negative",
    "not_equal",
    "pad",
    "power",
    "prepare",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "std",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "var",
    "where",
]

# ---------------------------------------------------------------- activations


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope * x; any shape, float32 or float64 (DTypeError otherwise).

    Source: Maas, Hannun, Ng 2013.
    """
    check_floating("leaky_relu", x=x)
    return where(x > 0, x, x * number("leaky_relu", "negative_slope", negative_slope))


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + e^(beta x)) / beta, a ReLU without the kink; any shape, float32 or float64 (DTypeError otherwise).

    No exponential overflows, and no digits are lost where the result is small: PyTorch's `threshold` is not needed.
    beta > 0.  Source: Dugas et al. 2001.
    """
    check_floating("softplus", x=x)
    beta = number("softplus", "beta", beta, above=0)
    z = x if beta == 1 else x * beta
    y = maximum(z, 0) + _log_of_1_plus(exp(-abs(z)))
    return y if beta == 1 else y / beta


def _log_of_1_plus(u: Tensor) -> Tensor:
    """log(1 + u) for 0 <= u <= 1.  With w = 1 + u as it is rounded, and c = u - (w - 1), what that has lost:
    log(w + c) = log(w) + log(1 + c / w), and the last is c / w, for c is tiny.
    """
    w = u + 1.0
    return log(w) + (u - (w - 1.0)) / w


# ---------------------------------------------------------------- losses


def mse_loss(x: Tensor, target: TensorLike, reduction: str = "mean") -> Tensor:
    """(x - target)^2, over all elements: reduction "mean", "sum", or "none", which keeps the shape.

    x: float32 or float64.  target: of the same shape (ShapeError otherwise), a tensor, array or list.
    """
    return _reduced("mse_loss", (x - _target("mse_loss", x, target)) ** 2.0, reduction)


def l1_loss(x: Tensor, target: TensorLike, reduction: str = "mean") -> Tensor:
    """|x - target|, over all elements; arguments as those of mse_loss.  Where both are equal, the slope is 0."""
    return _reduced("l1_loss", abs(x - _target("l1_loss", x, target)), reduction)


def binary_cross_entropy_with_logits(
    logits: Tensor,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """-target log(p) - (1 - target) log(1 - p) with p = sigmoid(logits), over all elements.

    logits: any shape, float32 or float64.  target: of that shape, numbers from 0 to 1 (ShapeError, ArgumentError).
    weight: of each element; pos_weight: of the first term, more than 1 where the positives are rare; both of a shape
    that broadcasts to that of logits.  reduction: "mean" (over all elements, whatever their weights, as in PyTorch),
    "sum" or "none".

    Computed from -log(p) = softplus(-logits) and -log(1 - p) = softplus(logits): finite for logits of 10,000, and exact
    where the loss is tiny.
    """
    name = "binary_cross_entropy_with_logits"
    t = _target(name, logits, target)
    seen = t.numpy()
    if seen.size and not (0 <= seen.min() and seen.max() <= 1):
        raise ArgumentError(
            f"{name}: target must be from 0 to 1, got {seen.min():g} to {seen.max():g}: 1 for yes and 0 for no, or a "
            "probability; of several classes in one number, use cross_entropy"
        )
    positive = t if pos_weight is None else t * pos_weight
    negative = 1.0 - t
    log_part = _log_of_1_plus(exp(-abs(logits)))
    loss = (positive + negative) * log_part + positive * maximum(-logits, 0) + negative * maximum(logits, 0)
    loss = loss if weight is None else loss * weight
    if loss.shape != logits.shape:
        raise ShapeError(f"{name}: weights must broadcast to logits {logits.shape}, the loss is {loss.shape}")
    return _reduced(name, loss, reduction)


def _target(name: str, x: Tensor, target: TensorLike) -> Tensor:
    """The target as a tensor of x's type and shape: what merely broadcasts is nearly always a mistake."""
    check_floating(name, x=x)
    t = as_tensor(target, x.device)
    if t.shape != x.shape:
        raise ShapeError(f"{name}: target must have the shape of the input, {x.shape}, it has {t.shape}: reshape one")
    if t.device is not x.device:
        raise DeviceError(f"{name}: input on {x.device}, target on {t.device}: bring them to one with .to()")
    return astype(t, x.dtype)


def _reduced(name: str, losses: Tensor, reduction: str) -> Tensor:
    one_of(name, "reduction", reduction, ("mean", "sum", "none"))
    return losses if reduction == "none" else sum(losses) if reduction == "sum" else mean(losses)


# ---------------------------------------------------------------- statistics, shapes


def var(x: Tensor, axis: Any = None, correction: int = 1, keepdims: bool = False) -> Tensor:
    """The variance over `axis` (None: all): sum((x - mean)^2) / (n - correction) of the n numbers there.

    correction: 1, as in PyTorch, for the variance of what the numbers are a sample of; 0 (NumPy's ddof) for that of
    the numbers.  ShapeError where n is not more than it.
    """
    check_floating("var", x=x)
    axes, correction = axes_of("var", axis, x.ndim), integer("var", "correction", correction, 0)
    n = math.prod(x.shape[a] for a in axes)
    if n <= correction:
        raise ShapeError(f"var: {n} number(s) of x {x.shape} along axis {axis} have no variance with correction="
                         f"{correction}: use correction=0, or more of them")  # fmt: skip
    away = x - mean(x, axes, keepdims=True)
    return sum(away * away, axes, flag("var", "keepdims", keepdims)) / float(n - correction)


def std(x: Tensor, axis: Any = None, correction: int = 1, keepdims: bool = False) -> Tensor:
    """The root of `var`, whose arguments it has.  Where all numbers are equal it is 0, and its slope infinite."""
    return sqrt(var(x, axis, correction, keepdims))


def stack(tensors: Iterable[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis, at that place in the result; ShapeError if they differ."""
    parts = list(tensors)
    if not parts or not all([isinstance(t, Tensor) for t in parts]):
        raise ArgumentError(f"stack: expects a list of one Tensor or more, got {[type(t).__name__ for t in parts]}")
    if any([t.shape != parts[0].shape for t in parts]):
        raise ShapeError(
            f"stack: tensors must have one shape, got {', '.join(str(t.shape) for t in parts)}: use concat"
        )
    at = normalized_axis("stack", axis, parts[0].ndim + 1)
    shape = (*parts[0].shape[:at], 1, *parts[0].shape[at:])
    return concat([reshape(t, shape) for t in parts], at)


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """The mean of each of OH x OW windows that cover the image: (N, C, H, W) becomes (N, C, OH, OW).

    output_size: an int or (OH, OW); 1 is global average pooling, (N, C, 1, 1).  Window i has the rows from i H / OH,
    rounded down, to (i + 1) H / OH, rounded up, as in PyTorch: windows of one size where OH divides H, else they
    overlap.
    """
    check_floating("adaptive_avg_pool2d", x=x)
    check_rank("adaptive_avg_pool2d", "x", x, 4, "(N, C, H, W)")
    outputs, sizes = pair("adaptive_avg_pool2d", "output_size", output_size, 1), x.shape[2:]
    if 0 in sizes:
        raise ShapeError(f"adaptive_avg_pool2d: x must have pixels, it is {x.shape}: leave empty images out")
    if outputs == (1, 1):
        return mean(x, (2, 3), keepdims=True)
    if sizes[0] % outputs[0] == sizes[1] % outputs[1] == 0:
        return avg_pool2d(x, (sizes[0] // outputs[0], sizes[1] // outputs[1]))
    for axis, size, count in ((2, sizes[0], outputs[0]), (3, sizes[1], outputs[1])):
        windows = [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        x = concat([mean(x[(slice(None),) * axis + (w,)], axis, keepdims=True) for w in windows], axis)
    return x
