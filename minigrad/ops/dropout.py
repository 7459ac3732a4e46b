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

import math

import numpy as np

from .. import gpu
from ..device import random_key
from ..engine import Array, Function
from ..errors import ArgumentError
from ..gpu import THREADS
from ..kernel import constants
from ..memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating, flag, is_number, one_of

FORMS = ("inverted", "paper")
BLOCK = 256  # bits that Philox makes of one value of its counter


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
            self.mask = mask = _mask_of_images(*random_key(self.device), x.shape, self.p)
            if not x.flags.c_contiguous:  # to the memory order of x: two orders in one product were measured slower
                self.mask = empty_like(x, np.bool_)
                np.copyto(self.mask, mask)
        return self.scaled(x)

    def backward_cpu(self, dy: Array) -> Array:
        return self.scaled(dy)

    def scaled(self, x: Array) -> Array:
        """x * mask * scale; NaN and inf times 0 are NaN, as in NumPy."""
        y = empty_like(x)
        if self.mask is None:
            return np.multiply(x, self.scale, out=y)
        np.copyto(y, self.mask)  # 1 or 0; measured faster than a product of floats and booleans
        if self.scale != 1:
            y *= self.scale
        return np.multiply(x, y, out=y)

    def forward_gpu(self, x: Array) -> Array:
        if self.training:
            self.key, first, images = random_key(self.device)
            self.before = first * (x.size // images)
        return self.scaled_gpu(x)

    def backward_gpu(self, dy: Array) -> Array:
        return self.scaled_gpu(dy)

    def scaled_gpu(self, x: Array) -> Array:
        """x * mask * scale; the mask is not kept: making it again is cheaper than going to memory for it."""
        x, n = gpu.contiguous(self.device, x), x.size
        y = gpu.empty_like(self.device, x)
        if not self.training:
            gpu.launch(self.device, "dropout", "scaled", gpu.blocks(n), THREADS, x, y, n, self.scale, REAL=x.dtype)
            return y
        bits = _bits_of_one(self.p)
        dropped = round(self.p * 2**bits)
        counter, skip = divmod(self.before, BLOCK // bits)
        stream = self.key, counter, skip
        types = {"REAL": x.dtype, "BITS": bits}
        (tile,) = constants("dropout", "TILE")
        grid = gpu.blocks(skip + n, tile) if n else 0
        gpu.launch(self.device, "dropout", "dropout", grid, THREADS, x, y, n, *stream, dropped, self.scale, **types)
        return y


def _mask_of_images(key: int, first: int, images: int, shape: tuple[int, ...], p: float) -> np.ndarray:
    """The mask of so many images of a batch, from `first` on; `shape` is theirs together, images outermost.

    In the stream of this key an element has the bits at its place in the whole batch.
    """
    before = first * (math.prod(shape) // images)  # elements of earlier images
    counter, skip = divmod(before, BLOCK // _bits_of_one(p))
    return _random_mask(np.random.Generator(np.random.Philox(key=key, counter=counter)), shape, p, skip)


def _random_mask(generator: np.random.Generator, shape: tuple[int, ...], p: float, skip: int = 0) -> np.ndarray:
    """A boolean array, each element False with probability p; the first `skip` draws are thrown away."""
    bits, size = _bits_of_one(p), math.prod(shape)
    dropped = round(p * 2**bits)  # of the 2**bits values that a unit can draw
    if dropped == 2**bits:
        return np.zeros(shape, np.bool_)
    words = generator.bit_generator.random_raw(-(-(skip + size) * bits // 64))
    if bits == 1:
        return np.unpackbits(words.view(np.uint8), count=skip + size)[skip:].view(np.bool_).reshape(shape)
    draws = words.view(f"u{bits // 8}")[skip : skip + size]
    return (draws >= draws.dtype.type(dropped)).reshape(shape)


def _bits_of_one(p: float) -> int:
    """How many random bits decide about one unit."""
    return next((bits for bits in (1, 8, 16) if (p * 2**bits).is_integer()), 32)


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
    if p == 0 or (form == "inverted" and not training):
        return x
    return apply(Dropout(float(p), training, form), x)
