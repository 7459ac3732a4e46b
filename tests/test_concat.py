"""concat and split."""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor, gradcheck


def normal(shape, device, seed=0, dtype="float64"):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), True, device, dtype)


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(2, 3), (4, 3)], 0),
        ([(2, 3), (2, 1), (2, 2)], 1),
        ([(2, 3), (2, 1)], -1),
        ([(2, 3, 4, 5), (2, 1, 4, 5)], 1),
        ([(3,)], 0),
        ([(2, 3), (0, 3), (1, 3)], 0),
        ([(3, 40), (3, 17), (3, 33)], 1),
    ],
)
def test_concat(shapes, axis, device):
    xs = [normal(shape, device, i) for i, shape in enumerate(shapes)]
    y = F.concat(xs, axis)
    np.testing.assert_array_equal(y.numpy(), np.concatenate([x.numpy() for x in xs], axis))
    assert gradcheck(lambda *xs: F.concat(xs, axis), xs)
    assert gradcheck(lambda x: F.concat([x, *(x.detach() for x in xs[1:])], axis), xs[:1])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_every_device_of_the_processor_joins_and_cuts(axis):
    """Element by element: which x has it, and where."""
    for where in ("textbook:0", "cpu:0"):
        xs = [normal([3 + 2 * (a == axis % 3) * i for a in range(3)], where, i) for i in range(3)]
        y = F.concat(xs, axis)
        places = [(i, place) for i, x in enumerate(xs) for place in range(x.shape[axis])]
        dy = np.random.default_rng(9).standard_normal(y.shape)
        y.backward(dy)
        pieces = F.split(Tensor(y.numpy(), True, where), np.cumsum([x.shape[axis] for x in xs])[:-1].tolist(), axis)
        assert y.shape[axis] == len(places) == 15
        for j, (i, place) in enumerate(places):
            here, there = (np.take(a, j, axis) for a in (y.numpy(), dy))
            np.testing.assert_array_equal(here, np.take(xs[i].numpy(), place, axis))
            np.testing.assert_array_equal(there, np.take(xs[i].grad.numpy(), place, axis))
            np.testing.assert_array_equal(here, np.take(pieces[i].numpy(), place, axis))
        assert gradcheck(lambda x, axis=axis: F.split(x, [1, 2], axis)[1], [normal((3, 4, 5), where)])


def test_concat_of_a_tensor_with_itself(device):
    assert gradcheck(lambda x: F.concat([x, x * 2, x]), [normal((2, 3), device)])


@pytest.mark.cpu_only("on a card, what an op makes is C-contiguous")
def test_concat_keeps_channels_last(device):
    images = [Tensor(np.ones((2, 5, 6, c)), device=device).transpose(0, 3, 1, 2) for c in (3, 4)]
    assert F.concat(images, 1).data.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("cut", "axis"),
    [(2, 0), (3, 1), (1, 0), ([1], 0), ([1, 3], 0), ([2, 2], 1), ([0, 6], -1), ([], 0), ((2,), 1)],
)
def test_split(cut, axis, device):
    x = normal((4, 6), device)
    pieces = F.split(x, cut, axis)
    expected = np.split(x.numpy(), cut, axis)
    assert isinstance(pieces, list) and len(pieces) == len(expected)
    for piece, right in zip(pieces, expected):
        np.testing.assert_array_equal(piece.numpy(), right)
        assert not piece.size or x.device.shares(piece.data, x.data)
    for i, piece in enumerate(expected):
        if piece.size:
            assert gradcheck(lambda x, i=i: F.split(x, cut, axis)[i], [x])
    assert gradcheck(lambda x: F.concat([p * (i + 1) for i, p in enumerate(F.split(x, cut, axis))], axis), [x])


def test_types_are_kept(device):
    x = normal((4, 6), device, dtype="float32")
    F.concat(F.split(x, 2)[::-1]).sum().backward()
    assert x.grad.dtype == np.float32
    assert F.concat([Tensor([1]), Tensor([2])]).dtype == np.int64
    assert F.split(Tensor([True, False]), 2)[0].dtype == np.bool_


def test_large_shapes_along_a_random_direction(device):
    xs = [normal((8, 48, 13, 13), device), normal((8, 33, 13, 13), device, 1)]
    assert gradcheck(lambda a, b: F.concat(F.split(F.concat([a, b], 1), 3, 1)[::-1], 1), xs, direction=True)


def test_concat_refused():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"concat: shapes must be equal except along axis 0, got \(2, 3\), \(2, 4\)"):
        minigrad.concat([x, Tensor(np.ones((2, 4)))])
    with pytest.raises(ShapeError, match="concat: shapes must be equal"):
        F.concat([x, Tensor(np.ones(3))])
    with pytest.raises(DTypeError, match="concat: tensors must have one element type, got float64, float32"):
        F.concat([x, x.astype("float32")])
    with pytest.raises(ShapeError, match="concat: axis 2 is out of range"):
        F.concat([x], 2)
    with pytest.raises(ShapeError, match="concat: axis 0 is out of range for a tensor with 0 axes"):
        F.concat([Tensor(1.0)])
    for wrong in (x, [], 3):
        with pytest.raises(ArgumentError, match="concat: expects a list"):
            F.concat(wrong)
    with pytest.raises(DTypeError, match=r"concat: tensors\[1\] must be a Tensor, got ndarray"):
        F.concat([x, np.ones((2, 3))])
    with pytest.raises(DeviceError, match="concat: inputs on cpu:0, cpu:1"):
        F.concat([Tensor([1.0], device="cpu:0"), Tensor([1.0], device="cpu:1")])


def test_split_refused():
    x = Tensor(np.ones((4, 6)))
    with pytest.raises(ShapeError, match=r"split: axis 0 of x \(4, 6\) does not divide into 3 equal sections: give"):
        minigrad.split(x, 3)
    for cuts in ([3, 1], [5], [-1]):
        with pytest.raises((ShapeError, ArgumentError), match="split: (cuts must rise|each cut must be)"):
            F.split(x, cuts)
    with pytest.raises(ArgumentError, match="split: sections must be an integer >= 1, got 0"):
        F.split(x, 0)
    with pytest.raises(ShapeError, match="split: axis 3 is out of range"):
        F.split(x, 2, 3)


@pytest.mark.cpu_only("on a card, what an op makes is C-contiguous")
def test_gradients_of_channels_last_images_are_channels_last(device):
    images = Tensor(np.ones((2, 5, 6, 7)), True, device).transpose(0, 3, 1, 2)
    left, right = F.split(images, [3], 1)
    joined = F.concat([left, right], 1)
    assert joined.data.strides == images.data.strides
    dy = joined.data * 2
    assert dy.strides == images.data.strides
    dleft, _ = joined.node.backward_cpu(dy)
    assert dleft.strides == left.data.strides
    assert left.node.backward_cpu(dleft).strides == images.data.strides
