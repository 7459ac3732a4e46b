"""dropout: both forms, the mask's probability, gradients under a fixed seed, p at its ends, refused input."""

import threading

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, Tensor, gradcheck, nn
from minigrad.base.random import Chunk, current_chunk
from minigrad.ops.dropout import Dropout, _random_mask

FORMS = ["inverted", "paper"]


def mask_of(size, p, key=12345, first=0):
    """Elements first, first + 1, ... of the mask of a key: False with probability p."""
    op = Dropout(p, "paper")
    return _random_mask(key, first, size, size, op.bits, op.dropped)


def tensor(shape, device, dtype=np.float64):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return Tensor(values, requires_grad=True, device=device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.25, 0.5, 0.7])
def test_training_multiplies_by_mask_and_scale(device, p, dtype):
    x = Tensor(np.full((50, 40), 3, dtype), device=device)
    y = F.dropout(x, p).numpy()
    assert y.dtype == dtype
    np.testing.assert_allclose(np.unique(y), [0, 3 / (1 - p)], rtol=1e-6)
    np.testing.assert_array_equal(np.unique(F.dropout(x, p, form="paper").numpy()), [0, 3])


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_testing(device, p):
    x = tensor((3, 4), device)
    assert F.dropout(x, p, training=False) is x
    np.testing.assert_allclose(F.dropout(x, p, False, "paper").numpy(), x.numpy() * (1 - p), rtol=1e-15)


def test_the_probability_is_the_nearest_of_32_bits():
    for p in (0.1, 0.3, 1 / 3, 0.7, 0.9, 1e-9, *np.random.default_rng(0).uniform(size=20)):
        op = Dropout(float(p), "paper")
        assert abs(op.dropped / 2**op.bits - p) <= 2.0**-33


@pytest.mark.parametrize("form", FORMS)
def test_p_zero_and_one(device, form):
    x = tensor((3, 5), device)
    assert F.dropout(x, 0, form=form) is x and F.dropout(x, 0, False, form) is x
    y = F.dropout(x, 1, form=form)
    y.backward(np.ones((3, 5)))
    assert not y.numpy().any() and not x.grad.numpy().any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.5, 0.3, 1.0])
def test_gradients_of_every_element(device, form, training, p):
    assert gradcheck(lambda x: F.dropout(x, p, training, form), [tensor((5, 7), device)])
    assert gradcheck(lambda x: F.dropout(x, p, training, form).T, [tensor((5, 7), device)])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_at_the_size_of_fc6(device, form):
    assert gradcheck(lambda x: F.dropout(x, 0.5, True, form), [tensor((65, 4097), device)], direction=True)


# 1, 8, 16 and 32 random bits a unit; the bounds are 5 standard deviations of a binomial share
@pytest.mark.parametrize("p", [0.5, 0.25, 3 / 256, 255 / 256, 1 / 65536, 0.1, 0.9, 1e-3])
def test_the_share_that_is_dropped(p):
    n = 1_000_001
    dropped = 1 - mask_of(n, p).mean()
    assert abs(dropped - p) < 5 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1])
def test_neighbours_are_dropped_independently(p):
    mask = mask_of(400_000, p)
    for gap in (1, 2, 4, 8, 32, 64):
        both = (~mask[gap:] & ~mask[:-gap]).mean()
        assert abs(both - p * p) < 5 * np.sqrt(p * p / len(mask))


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (63,), (65,), (3, 5, 7)])
@pytest.mark.parametrize("p", [0.5, 0.25, 1 / 65536, 0.1, 1 - 1e-12])
def test_masks_of_any_shape(shape, p, device):
    y = F.dropout(Tensor(np.ones(shape), device=device), p, form="paper")
    assert y.shape == shape and set(y.numpy().ravel()) <= {0, 1}


def test_seeds_devices_and_memory_orders(device):
    x = np.ones((30, 20), np.float32)

    def mask(array, where=device):
        minigrad.manual_seed(7)
        return F.dropout(Tensor(array, device=where)).numpy()

    np.testing.assert_array_equal(mask(x), mask(x))
    np.testing.assert_array_equal(mask(x), mask(np.asfortranarray(x)))
    assert (mask(x, "cpu:0") != mask(x, "cpu:1")).any()
    minigrad.manual_seed(7)
    first, second = (F.dropout(Tensor(x, device=device)).numpy() for _ in range(2))
    assert (first != second).any()


def test_the_expected_output_is_the_same_in_training_and_testing(device):
    x = Tensor(np.ones((1000, 100)), device=device)
    assert F.dropout(x, 0.3).numpy().mean() == pytest.approx(1, abs=0.01)
    trained, tested = (F.dropout(x, 0.3, training, "paper").numpy().mean() for training in (True, False))
    assert trained == pytest.approx(0.7, abs=0.01) and tested == pytest.approx(0.7)


def test_nan_and_inf_as_numpy(device):
    x = Tensor(np.full(1000, np.nan, np.float32), device=device)
    assert np.isnan(F.dropout(x).numpy()).all()
    with np.errstate(invalid="ignore"):
        y = F.dropout(Tensor(np.full(1000, np.inf, np.float32), device=device)).numpy()
    assert set(np.unique(y[~np.isnan(y)])) == {np.inf} and np.isnan(y).any()


def test_the_layer_follows_train_and_eval(device):
    layer, x = nn.Dropout(0.5), tensor((20, 20), device)
    assert (layer(x).numpy() == 0).any()
    assert layer.eval()(x) is x
    np.testing.assert_allclose(nn.Dropout(0.25, form="paper").eval()(x).numpy(), x.numpy() * 0.75)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), True, "half", None])
def test_refused_p(device, p):
    with pytest.raises(ArgumentError, match="dropout: p, the probability of dropping, must be between 0 and 1, got"):
        F.dropout(tensor((2,), device), p)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        nn.Dropout(p)


def test_refused_input(device):
    with pytest.raises(ArgumentError, match="form must be 'inverted' or 'paper', got 'torch'"):
        F.dropout(tensor((2,), device), form="torch")
    with pytest.raises(DTypeError, match="dropout: expects floating-point input, got x int64"):
        F.dropout(Tensor([1], device=device))


# ---------------------------------------------------------------- chunks of a batch


def in_chunk(first, keys, x, p):
    """Dropout of two runs in one chunk that begins at image `first` of the batch."""
    token = current_chunk.set(Chunk(first, len(x), keys, threading.Lock()))
    try:
        return [F.dropout(x, p).numpy() for _ in range(2)]
    finally:
        current_chunk.reset(token)


@pytest.mark.parametrize("shape", [(11,), (11, 3), (11, 256), (11, 5, 7, 3), (64, 37)])
@pytest.mark.parametrize("p", [0.5, 0.25, 1 / 65536, 0.1, 1 - 1e-12])
def test_images_get_their_masks_in_chunks_of_any_size(device, shape, p):
    x = Tensor(np.ones(shape, np.float32), device=device)
    keys = []
    whole = in_chunk(0, keys, x, p)
    assert len(keys) == 2
    for bounds in ([0, 1, 4, 5, 11], [0, 6, 11], [4, 11, 0, 4]):
        for start, stop in zip(bounds, bounds[1:]):
            if start < stop:
                part = in_chunk(start, keys, x[start:stop], p)
                for ours, all_images in zip(part, whole):
                    np.testing.assert_array_equal(ours, all_images[start:stop])
    assert len(keys) == 2


def test_without_chunks_the_batch_is_one_chunk(device):
    x = Tensor(np.ones((9, 50), np.float32), device=device)
    minigrad.manual_seed(3)
    outside = [F.dropout(x).numpy() for _ in range(2)]
    minigrad.manual_seed(3)
    inside = in_chunk(0, [], x, 0.5)
    np.testing.assert_array_equal(outside, inside)
    assert (outside[0] != outside[1]).any()


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1])
def test_masks_of_channels_last_images(device, p):
    ones = np.ones((6, 3, 5, 7), np.float32)
    minigrad.manual_seed(3)
    plain = F.dropout(Tensor(ones, device=device), p).numpy()
    minigrad.manual_seed(3)
    x = Tensor(ones.transpose(0, 2, 3, 1).copy(), True, device)
    images = x.transpose(0, 3, 1, 2)
    y = F.dropout(images, p)
    np.testing.assert_array_equal(y.numpy(), plain)
    if y.device.kind == "cpu":  # on a card every result is C-contiguous; on textbook:0 it is as NumPy makes it
        assert y.data.strides == images.data.strides
    y.backward(ones)
    np.testing.assert_array_equal(x.grad.numpy().transpose(0, 3, 1, 2), plain)


# ---------------------------------------------------------------- every bit, on every device


def expected_mask(key, before, n, p):
    """n elements of the mask, the first being element `before` of the batch: what the formula says, bit by bit."""
    bits = next((bits for bits in (1, 8, 16) if (p * 2**bits).is_integer()), 32)
    generator = np.random.Philox(key=key)
    generator.advance(before * bits // 256)
    skip = before * bits % 256 // bits
    stream = generator.random_raw((skip + n) * bits // 64 + 4).astype("<u8").tobytes()
    if bits == 1:
        draws = np.unpackbits(np.frombuffer(stream, np.uint8))
    else:
        draws = np.frombuffer(stream, f"<u{bits // 8}")
    return draws[skip : skip + n] >= round(p * 2**bits)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.5, 0.25, 255 / 256, 3 / 65536, 0.1, 0.7])
@pytest.mark.parametrize("first", [0, 1, 5, 2**31 + 1, 2**45 + 3])  # the last two: counters of more than 32 bits
def test_every_bit_of_the_mask(device, p, first, dtype):
    """The masks of a key are the same on every device, forward and backward."""
    x = Tensor(np.random.default_rng(0).standard_normal((5, 1031)).astype(dtype), True, device)
    key = 2**64 - 12345
    token = current_chunk.set(Chunk(first, 5, [key], threading.Lock()))
    y = F.dropout(x, p)
    current_chunk.reset(token)
    factor = expected_mask(key, first * 1031, 5 * 1031, p).reshape(5, 1031).astype(dtype) * x.dtype.type(1 / (1 - p))
    np.testing.assert_array_equal(y.numpy(), x.numpy() * factor)
    dy = np.random.default_rng(1).standard_normal((5, 1031)).astype(dtype)
    y.backward(dy)
    np.testing.assert_array_equal(x.grad.numpy(), dy * factor)


@pytest.mark.parametrize("bits", [1, 8, 16, 32])
def test_tiles_of_every_size_give_the_same_mask(device, bits):
    where = minigrad.device(device)
    if where.on_host:
        pytest.skip("the processor runs no kernels")
    key, counter, n = 2**63 + 99, 2**63 + 7, 5001
    skip, p = 256 // bits - 1, 1 / 2 if bits == 1 else 3 / 2**bits if bits < 32 else 0.3
    x, masks = Tensor(np.ones(n, np.float32), device=device), []
    for tile, block in ((1024, 256), (1024, 128), (2048, 1024), (256, 96)):
        grid = -(-(skip + n) // tile)
        y = where.full((n,), -1, np.float32)
        stream, types = (key, counter, skip), {"REAL": np.float32, "BITS": bits, "TILE": tile}
        where.launch("dropout", "dropout", grid, block, x.data, y, n, *stream, round(p * 2**bits), 1, **types)
        masks.append(where.runtime.to_host(y))
    expected = mask_of(n, p, key, counter * (256 // bits) + skip)
    for mask in masks:
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.5, 0.25, 3 / 65536, 0.1, 1.0])
def test_the_textbooks_face_and_the_fast_one(p, form):
    """On textbook:0 as on cpu:0, bit by bit: y = x * mask * scale, with the mask of the device's next key."""
    values = np.random.default_rng(0).standard_normal((13, 9, 5)).astype("float32").transpose(0, 2, 1)
    dy = np.random.default_rng(1).standard_normal(values.shape).astype("float32")
    results = []
    for where in ("textbook:0", "cpu:0"):
        minigrad.manual_seed(5)
        x = Tensor(values, True, where)
        y = F.dropout(x, p, form=form)
        assert str(y.device) == where and y.dtype == "float32"
        y.backward(dy)
        results.append((y.numpy(), x.grad.numpy()))
    minigrad.manual_seed(5)
    key = int(minigrad.device("cpu:0").generator.bit_generator.random_raw())
    factor = expected_mask(key, 0, values.size, p).reshape(values.shape) * np.float32(
        1 / (1 - p) if form == "inverted" and p < 1 else 1
    )
    for y, dx in results:
        np.testing.assert_array_equal(y, values * factor)
        np.testing.assert_array_equal(dx, dy * factor)


# ---------------------------------------------------------------- independence


# Images that differ in where they begin in a block of 256 bits; the bound is 5 standard deviations
@pytest.mark.parametrize("p", [0.5, 0.25, 0.1])
def test_images_and_runs_are_independent(device, p):
    x = Tensor(np.ones((400, 1000), np.float32), device=device)
    one, other = (F.dropout(x, p).numpy() == 0 for _ in range(2))
    for both in (one & other, one[1:] & one[:-1], one[4:] & one[:-4]):
        assert abs(both.mean() - p * p) < 5 * np.sqrt(p * p / both.size)
    counts = one.sum(axis=1)
    assert counts.std() == pytest.approx(np.sqrt(1000 * p * (1 - p)), rel=0.25)


@pytest.mark.parametrize("p", [2.0**-33, 2.0**-32, 1e-9, 1 - 2.0**-33, 1 - 1e-12])
def test_p_next_to_zero_and_one(device, p):
    y = F.dropout(Tensor(np.ones(10_000), device=device), p).numpy()
    assert (y != 0).all() if p < 0.5 else (y == 0).all()
