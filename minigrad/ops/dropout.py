"""Dropout: switch each unit off with probability p.

    inverted form (every framework today)        paper's form
    training:  y = x * mask / (1 - p)            training:  y = x * mask
    testing:   y = x                             testing:   y = x * (1 - p)

    mask is 0 with probability p, else 1;  dx = dy times whatever x was multiplied by.

Both give a unit the same expected output in training and testing; they differ in its scale, (1 - p) in the paper's.

The probability is exact where p is a multiple of 1/2, 1/256, 1/65536 or 2**-32, and within 2**-33 of p
elsewhere: each unit costs 1, 8, 16 or 32 random bits, whichever is enough.  For p = 0.5 one bit a unit makes
the mask cheaper than the multiplication it is for.

Element i of the batch, counted in row-major order whatever the order in memory, has draw number i of a
counter-based generator, which can begin anywhere.  So a mask does not depend on which images are run together,
or in which thread: the images of a chunk (in_chunks; images along axis 0) get what they get within the batch.
On a graphics card the mask is never kept: forward and backward make the same bits where they are needed.

Source: Krizhevsky, Sutskever, Hinton 2012, section 4.2; Hinton et al. 2012 (arXiv 1207.0580);
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

import numpy as np

from .. import gpu
from ..base.random import random_key
from ..engine import Array, Function
from ..errors import ArgumentError
from ..gpu import THREADS
from ..gpu.sources import constants
from ..processor.memory import empty_like
from ..tensor import OPS, Tensor, apply, op
from ._checks import check_floating, flag, is_number, one_of

FORMS = ("inverted", "paper")
PHILOX = 256  # bits that Philox makes of one value of its counter


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
    if not is_number(p) or not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p, the probability of dropping, must be between 0 and 1, got {p!r}")
    training, form = flag("dropout", "training", training), one_of("dropout", "form", form, FORMS)
    if not training and form == "paper" and p > 0:
        return OPS["multiply"](x, 1 - float(p))
    return apply(Dropout(float(p), form), x) if training and p > 0 else x


class Dropout(Function):
    """Dropout in training; in testing nothing is random, and the paper's form is a multiplication.

    bits, dropped: an element draws a number of so many random bits, and is dropped where that is below `dropped`.
    """

    def __init__(self, p: float, form: str):
        self.bits = next((bits for bits in (1, 8, 16) if (p * 2**bits).is_integer() and p < 1), 32)
        self.dropped = round(p * 2**self.bits)
        self.scale = 1 / (1 - p) if form == "inverted" and p < 1 else 1.0  # where p is 1, the mask is 0 everywhere

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.mask = _random_mask(*random_key(self.device), x.size, self.bits, self.dropped).reshape(x.shape)
        return x * self.mask * self.scale

    def backward(self, dy: Array) -> Array:
        return dy * self.mask * self.scale

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        self.mask = mask = _random_mask(*random_key(self.device), x.size, self.bits, self.dropped).reshape(x.shape)
        if not x.flags.c_contiguous:  # to the memory order of x: two orders in one product were measured slower
            self.mask = empty_like(x, np.bool_)
            np.copyto(self.mask, mask)
        return self.masked(x)

    def backward_cpu(self, dy: Array) -> Array:
        return self.masked(dy)

    def masked(self, x: Array) -> Array:
        """x * mask * scale; NaN and inf times 0 are NaN, as in NumPy."""
        y = empty_like(x)
        np.copyto(y, self.mask)  # 1 or 0; measured faster than a product of floats and booleans
        if self.scale != 1:
            y *= self.scale
        return np.multiply(x, y, out=y)

    # ---- on a card: the mask is not kept, making it again is cheaper than going to memory for it

    def forward_gpu(self, x: Array) -> Array:
        self.key, first, images = random_key(self.device)
        self.before = first * (x.size // images)  # elements of the batch that come before this chunk
        return self.masked_gpu(x)

    def backward_gpu(self, dy: Array) -> Array:
        return self.masked_gpu(dy)

    def masked_gpu(self, x: Array) -> Array:
        """x * mask * scale."""
        x, n = self.device.contiguous(x), x.size
        y = self.device.empty_like(x)
        counter, skip = divmod(self.before, PHILOX // self.bits)
        args = n, self.key, counter, skip, self.dropped, self.scale
        types = {"REAL": x.dtype, "BITS": self.bits}
        (tile,) = constants("dropout", "TILE")
        grid = gpu.blocks(skip + n, tile) if n else 0
        self.device.launch("dropout", "dropout", grid, THREADS, x, y, *args, **types)
        return y


def _random_mask(key: int, first: int, images: int, size: int, bits: int, dropped: int) -> np.ndarray:
    """`size` elements of so many images of a batch, from image `first` on: False where an element is dropped.

    The batch has a stream of random numbers, that of `key`, and an element has the number at its place in the batch.
    """
    counter, skip = divmod(first * (size // images), PHILOX // bits)  # where in the stream the first image begins
    words = np.random.Philox(key=key, counter=counter).random_raw(-(-(skip + size) * bits // 64))
    if bits == 1:  # p is 1/2: the numbers, 0 or 1, are the mask
        return np.unpackbits(words.view(np.uint8), count=skip + size)[skip:].view(np.bool_)
    return words.view(f"u{bits // 8}")[skip : skip + size] >= dropped
