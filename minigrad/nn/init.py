"""Initial weights.  Each function overwrites a tensor in place and returns it.

Random values come from the generator of the tensor's device, in the order of the tensor's indices: the same
seed gives the same weights whatever the order of the array in memory.

He initialisation keeps the variance of the activations from layer to layer through ReLUs: He et al. 2015
(arXiv 1502.01852).  AlexNet itself drew from N(0, 0.01): Krizhevsky, Sutskever, Hinton 2012, section 5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..base.arguments import number
from ..base.grad_mode import no_grad
from ..base.spellings import of_module
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor

if not TYPE_CHECKING:  # which is to know what there is not
    __getattr__ = of_module("minigrad.nn.init")


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 0.01) -> Tensor:
    """Values from the normal distribution; the default is the paper's."""
    _check("normal_", tensor)
    mean, std = number("normal_", "mean", mean), number("normal_", "std", std, minimum=0)
    values = tensor.device.generator.standard_normal(tensor.shape, tensor.dtype)
    values *= std
    values += mean
    return _fill(tensor, values)


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Values evenly spread over [low, high)."""
    _check("uniform_", tensor)
    low, high = number("uniform_", "low", low), number("uniform_", "high", high)
    if high < low:
        raise ArgumentError(f"uniform_: high must be >= low, got low {low:g}, high {high:g}")
    values = tensor.device.generator.random(tensor.shape, tensor.dtype)
    values *= high - low
    values += low
    return _fill(tensor, values)


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Every element the same."""
    _check("constant_", tensor)
    return _fill(tensor, number("constant_", "value", value))


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0: the usual bias."""
    _check("zeros_", tensor)
    return _fill(tensor, 0)


def he_normal_(tensor: Tensor) -> Tensor:
    """N(0, sqrt(2 / fan_in)), fan_in being the number of inputs that one output sums over.

    tensor: the weight of a linear layer (out, in), fan_in = in, or of a convolution (out, in / groups, kh,
    kw), fan_in = in / groups * kh * kw.  ShapeError for other ranks.  Source: He et al. 2015, section 2.2.
    """
    return normal_(tensor, 0.0, math.sqrt(2 / max(1, fan_in("he_normal_", tensor))))


def fan_in(name: str, tensor: Tensor) -> int:
    """The number of inputs that one output of this weight sums over."""
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 4):
        seen = tensor.shape if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ShapeError(
            f"{name}: tensor must be a weight (out, in) or (out, in, kh, kw), got {seen}: take normal_ for others, "
            "with a std of your own"
        )
    return math.prod(tensor.shape[1:])


def _check(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype.kind != "f":
        seen = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise DTypeError(f"{name}: tensor must be a floating-point Tensor, got {seen}: make it with dtype='float32'")


def _fill(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        tensor[...] = values
    return tensor
