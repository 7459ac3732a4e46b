"""Dropout: switch each unit off with probability p.

    inverted form (every framework today)        paper's form
    training:  y = x * mask / (1 - p)            training:  y = x * mask
    testing:   y = x                             testing:   y = x * (1 - p)

    mask is 0 with probability p, else 1;  dx = dy times whatever x was multiplied by.

Both give a unit the same expected output in training and testing; they differ in its scale, (1 - p) in the paper's.

The probability is exact where p is a multiple of 1/2, 1/256, 1/65536 or 2**-32, and within 2**-33 of p
elsewhere: each unit costs 1, 8, 16 or 32 random bits, whichever is enough.  For p = 0.5 one bit a unit makes
the mask cheaper than the multiplication it is for.

Source: Krizhevsky, Sutskever, Hinton 2012, section 4.2; Hinton et al. 2012 (arXiv 1207.0580).
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..errors import ArgumentError
from ..tensor import Tensor, apply, op
from ._checks import check_floating

FORMS = ("inverted", "paper")


class Dropout(Function):
    mask: Array | None = None

    def __init__(self, p: float, training: bool, form: str):
        self.p, self.training = p, training
        if form == "paper":
            self.scale = 1.0 if training else 1 - p
        else:
            self.scale = 1 / (1 - p) if p < 1 else 1.0  # p = 1: the mask is 0 everywhere

    def forward_cpu(self, x: Array) -> Array:
        if self.training:
            self.mask = _random_mask(self.device.generator, x.shape, self.p)
        return self.scaled(x)

    def backward_cpu(self, dy: Array) -> Array:
        return self.scaled(dy)

    def scaled(self, x: Array) -> Array:
        """x * mask * scale; NaN and inf times 0 are NaN, as in NumPy."""
        scale = x.dtype.type(self.scale)
        if self.mask is None:
            return x * scale
        y = x * self.mask
        return np.multiply(y, scale, out=y) if self.scale != 1 else y


def _random_mask(generator: np.random.Generator, shape: tuple[int, ...], p: float) -> np.ndarray:
    """A boolean array, each element False with probability p; the same for every memory order of x."""
    size = int(np.prod(shape))
    bits = next((bits for bits in (1, 8, 16) if (p * 2**bits).is_integer()), 32)
    words = generator.bit_generator.random_raw(-(-size * bits // 64))
    if bits == 1 and p == 0.5:
        return np.unpackbits(words.view(np.uint8), count=size).view(np.bool_).reshape(shape)
    dropped = round(p * 2**bits)  # of the 2**bits values that a unit can draw
    if dropped == 2**bits:
        return np.zeros(shape, np.bool_)
    draws = words.view(f"u{max(1, bits // 8)}")[:size]
    return (draws >= draws.dtype.type(dropped)).reshape(shape)


@op
def dropout(x: Tensor, p: float = 0.5, training: bool = True, form: str = "inverted") -> Tensor:
    """Multiply each element of x by 0 with probability p, from the generator of x's device.

    x: any shape, float32 or float64 (DTypeError otherwise).  p: 0 <= p <= 1 (ArgumentError otherwise).
    form: "inverted" divides by 1 - p while training and does nothing in testing; "paper" does nothing more
    while training and multiplies by 1 - p in testing.
    Returns x itself where there is nothing to do (p = 0, or testing in the inverted form).

    Source: Krizhevsky, Sutskever, Hinton 2012, section 4.2.
    """
    check_floating("dropout", x=x)
    if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p, the probability of dropping, must be between 0 and 1, got {p!r}")
    if form not in FORMS:
        raise ArgumentError(f"dropout: form must be 'inverted' or 'paper', got {form!r}")
    if p == 0 or (form == "inverted" and not training):
        return x
    return apply(Dropout(float(p), training, form), x)
