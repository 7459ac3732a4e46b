"""Tensors of more than 2^31 elements, which no 32-bit index reaches.  (Pooling and LRN are asked in their own files.)

The arrays exist by address only (far.py): the emulator runs the last blocks of each grid alone, and what they compute
must be what the op makes of the last images by themselves, on the CPU.
"""

import math

import numpy as np
import pytest
from far import last_images_of_many

import minigrad
import minigrad.functional as F
from minigrad.base.random import random_key
from minigrad.cudasim import compiler, settings
from minigrad.cudasim.runtime import SimRuntime
from minigrad.ops.dropout import _random_mask
from minigrad.optim import SGD
from minigrad.tensor import wrap

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))

SIM = minigrad.device("cudasim:0")
LARGE = 2**31
WEIGHT = np.random.default_rng(1).standard_normal((5, 12, 3, 3)).astype(np.float32)

OPS = {
    "relu": (F.relu, (12, 9, 7)),
    "tanh": (F.tanh, (12, 9, 7)),
    "exp": (F.exp, (12, 9, 7)),
    "negative": (F.negative, (12, 9, 7)),
    "softmax": (F.softmax, (301,)),
    "softmax, axis 1": (lambda x: F.softmax(x, 1), (31, 37)),
    "pad": (lambda x: F.pad(x, ((0, 0), (2, 1))), (301,)),
}


@pytest.mark.parametrize("name", OPS)
def test_the_last_images(name, monkeypatch):
    op, image = OPS[name]
    random = np.random.default_rng(0)
    x = random.standard_normal((2, *image)).astype(np.float32)
    alone = minigrad.Tensor(x, True, "cpu:0")
    wanted = op(alone)
    dy = random.standard_normal(wanted.shape).astype(np.float32)
    wanted.backward(dy)
    y, dx = last_images_of_many(op, x, dy, "cudasim:0", monkeypatch)
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, alone.grad.numpy(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- what has no images, or reads more than one input


@pytest.fixture
def last_blocks(monkeypatch):
    """Each launch runs the last 400 blocks of its grid only; memory is not filled in advance."""
    launch = SimRuntime.launch

    def few(self, function, parameters, grid, *rest):
        total = math.prod(grid)
        with settings.options(blocks=range(max(0, total - 400), total)):
            launch(self, function, parameters, grid, *rest)

    monkeypatch.setattr(SimRuntime, "launch", few)
    with settings.options(poison=False, mode="fast"):
        yield


def sparse(shape, last):
    """A tensor of that shape, zero but for its last rows."""
    array = SIM.empty(shape, last.dtype)
    array.host[-len(last) :] = last
    return wrap(array, SIM)


def test_conv2d(last_blocks):
    last = np.random.default_rng(0).standard_normal((2, 12, 55, 55)).astype(np.float32)
    x = sparse((LARGE // last[0].size + 3, *last[0].shape), last)
    with minigrad.no_grad():
        y = F.conv2d(x, minigrad.Tensor(WEIGHT, device=SIM), padding=1)
        wanted = F.conv2d(minigrad.Tensor(last, device="cpu:0"), minigrad.Tensor(WEIGHT, device="cpu:0"), padding=1)
    np.testing.assert_allclose(y.data.host[-2:], wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_linear_with_a_large_weight(last_blocks):
    last = np.random.default_rng(0).standard_normal((70, 2**16)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal((3, 2**16)).astype(np.float32)
    w = sparse((2**15 + 70, 2**16), last)
    with minigrad.no_grad():
        y = F.linear(minigrad.Tensor(x, device=SIM), w).data.host[:, -70:]
    done = y != 0  # the last blocks need not reach all of them
    assert done.sum() >= 3
    np.testing.assert_allclose(y[done], (x @ last.T)[done], rtol=1e-3, atol=1e-2)


def test_copies_in_another_order(last_blocks):
    """dst[n,i,j] = src[n,j,i] with 2^31 elements and more: offsets in 64 bits through both layouts."""
    last = np.random.default_rng(0).standard_normal((2, 31, 37)).astype(np.float32)
    x = sparse((LARGE // last[0].size + 3, 31, 37), last)
    y = SIM.copied(x.data.transpose(0, 2, 1))
    np.testing.assert_array_equal(y.host[-2:], last.transpose(0, 2, 1))


def test_sgd(last_blocks):
    n = LARGE + 1004  # whole float4s: what is left over would be done by the first block
    w, g = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    p = sparse((n,), w)
    p.requires_grad_()
    p.grad = sparse((n,), g)
    SGD([p], lr=0.5, momentum=0.9).step()
    np.testing.assert_allclose(p.data.host[-5000:], w - 0.5 * g, rtol=1e-5, atol=1e-6)


def test_dropout(last_blocks):
    """The mask of the last elements is that of the CPU, which can begin anywhere in its stream."""
    x = sparse((LARGE + 5000,), np.ones(5000, np.float32))
    minigrad.manual_seed(3)
    y = F.dropout(x, 0.5)
    minigrad.manual_seed(3)
    image = x.size // 1000 - 4  # 1000 elements are an image to the CPU's mask
    mask = _random_mask(random_key(SIM)[0], image, 1, 1000, 1, 1)
    np.testing.assert_array_equal(y.data.host[image * 1000 : (image + 1) * 1000] != 0, mask)


def test_prepare(last_blocks):
    """More than 2^31 bytes of pictures, and floats of views."""
    random = np.random.default_rng(0)
    last, mean = (
        random.integers(0, 256, (4, 45, 43, 3), dtype=np.uint8),
        random.uniform(0, 255, (45, 43, 3)).astype("f"),
    )
    n = LARGE // (2 * 3 * 37 * 37) + 5
    images = sparse((4 * n, *last[0].shape), last)
    windows, colours = np.zeros((4 * n, 2, 3), np.int32), np.zeros((4 * n, 3), np.float32)
    windows[-4:], colours[-4:] = random.integers(0, (9, 7, 2), (4, 2, 3)), random.standard_normal((4, 3))
    y = F.prepare(images, windows, 37, mean, colours)
    assert images.size > LARGE and y.size > LARGE
    wanted = F.prepare(minigrad.Tensor(last, device="cpu:0"), windows[-4:], 37, mean, colours[-4:])
    np.testing.assert_array_equal(y.data.host[-4:], wanted.numpy())
    with pytest.raises(minigrad.ShapeError, match=r"at most 2147483647 numbers, they have \(65536, 32768, 1\)"):
        F.prepare(wrap(SIM.empty((1, 2**16, 2**15, 1), np.uint8), SIM), [(0, 0, 0)], 37, mean)
