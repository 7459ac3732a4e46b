"""lrn_within_map against naive loops and PyTorch; gradients by differences, with alpha that matters."""

import numpy as np
import pytest
from far import last_images_of_many
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import lrn_within_map_gradient_reference, lrn_within_map_reference

import minigrad
from minigrad import Tensor, gradcheck
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops.lrn import lrn_within_map

CASES = [  # shape, n, k, alpha, beta
    ((2, 2, 6, 7), 5, 1.0, 0.5, 0.75),
    ((1, 3, 7, 4), 3, 2.0, 0.4, 0.5),
    ((2, 2, 3, 2), 9, 0.5, 0.1, 1.3),  # the window is larger than the image
    ((2, 3, 1, 1), 5, 1.0, 0.5, 0.75),
    ((1, 2, 3, 3), 1, 1.0, 0.5, 0.75),
    ((1, 2, 4, 3), 3, 2.0, 0.5, -0.6),
    ((2, 1, 3, 4), 3, 0.1, 0.0, 0.75),
    ((1, 2, 3, 1), 2**63 - 1, 1.0, 0.5, 2.5),
    ((1, 2, 5, 4), 3, 1.0, 0.5, 0.0),
]
LARGE = [  # more than 32 x 32 pixels, which is what a block of threads looks at, and some left over
    ((2, 2, 37, 70), 5, 1.0, 0.5, 0.75),
    ((1, 2, 70, 33), 9, 2.0, 0.4, 0.5),
    ((1, 1, 99, 8), 67, 0.5, 0.1, 1.3),  # windows that reach from one block beyond the next
    ((1, 1, 6, 101), 71, 1.0, 0.1, 0.75),
    ((1, 2, 64, 32), 5, 1.0, 0.5, 0.75),
    ((1, 2, 56, 28), 5, 1.0, 0.5, 0.75),  # nothing left over of 32 - 4
    ((1, 2, 17, 35), 17, 1.0, 0.1, 0.75),  # the widest window whose terms a block of a card has in shared memory
    ((1, 2, 11, 21), 19, 1.0, 0.1, 0.75),  # and one that is wider
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def window_sums(x, n):
    """The sums over n x n pixels around every pixel: slices along one axis, then along the other."""
    for axis in (2, 3):
        size = x.shape[axis]
        slices = [np.arange(max(0, i - n // 2), min(size, i + n // 2 + 1)) for i in range(size)]
        x = np.stack([x.take(one, axis).sum(axis) for one in slices], axis)
    return x


def run(x, device, *args, dy=None, **kwargs):
    tensor = Tensor(x, requires_grad=True, device=device)
    y = lrn_within_map(tensor, *args, **kwargs)
    y.backward(Tensor(np.ones(y.shape) if dy is None else dy, device=device, dtype=x.dtype))
    return y.numpy(), tensor.grad.numpy()


@pytest.fixture(params=["under test", "textbook:0"])
def face(request, device):
    """The device under test, and the textbook's face."""
    return device if request.param == "under test" else request.param


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_naive_loops(case, face):
    shape, *rest = case
    x, dy = normal(*shape) * 3, normal(*shape, seed=1)
    y, dx = run(x, face, *rest, dy=dy)
    np.testing.assert_allclose(y, lrn_within_map_reference(x, *rest), rtol=1e-13)
    np.testing.assert_allclose(dx, lrn_within_map_gradient_reference(x, dy, *rest), rtol=1e-11, atol=1e-13)
    same = run(x, "cpu:0", *rest, dy=dy)
    np.testing.assert_allclose(y, same[0], rtol=1e-13)
    np.testing.assert_allclose(dx, same[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_of_every_element(case, face):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=face)
    assert gradcheck(lambda x: lrn_within_map(x, *rest), [x])


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_larger_maps(case, face):
    shape, n, k, alpha, beta = case
    x = normal(*shape)
    y = lrn_within_map(Tensor(x, device=face), n, k, alpha, beta)
    np.testing.assert_allclose(y.numpy(), x / (k + alpha * window_sums(x**2, n)) ** beta, rtol=1e-12)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_gradient_of_larger_maps(case, device):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: lrn_within_map(x, *rest), [x], direction=True)


def test_gradient_at_the_original_nets_shape(device):
    x = Tensor(normal(3, 128, 27, 27), requires_grad=True, device=device)
    assert gradcheck(lambda x: lrn_within_map(x, alpha=0.5), [x], direction=True)


def test_defaults_are_the_original_codes(device):
    x = normal(1, 1, 6, 6) * 100
    expected = lrn_within_map_reference(x, n=5, k=1, alpha=0.001 / 25, beta=0.75)
    np.testing.assert_allclose(lrn_within_map(Tensor(x, device=device)).numpy(), expected, rtol=1e-13)


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)),
    st.sampled_from([1, 3, 5, 7]),
    st.floats(0.5, 3),
    st.floats(0, 1),
    st.one_of(st.just(0.75), st.floats(0.1, 2)),
    st.integers(0, 1000),
)
def test_matches_pytorch(device, shape, n, k, alpha, beta, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    x, dy = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    theirs = torch.tensor(x, requires_grad=True)
    total = torch.nn.functional.avg_pool2d(theirs**2, n, 1, n // 2, divisor_override=1)
    y = theirs * (k + alpha * total) ** -beta
    y.backward(torch.tensor(dy))
    ours, dx = run(x, device, n, k, alpha, beta, dy=dy)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_nan_stays_in_its_windows(face):
    x = np.ones((2, 2, 6, 6), np.float32)
    x[0, 1, 1, 4] = np.nan
    touched = np.zeros(x.shape, bool)
    touched[0, 1, 0:3, 3:6] = True
    np.testing.assert_array_equal(np.isnan(lrn_within_map(Tensor(x, device=face), n=3).numpy()), touched)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("corner", [(0, 0), (0, 4), (5, 0), (5, 4)])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_inf_in_a_corner_stay_in_their_map(bad, corner, face):
    x, dy = normal(3, 2, 6, 5), normal(3, 2, 6, 5, seed=1)
    clean_y, clean_dx = run(x, face, 5, 1.0, 0.5, dy=dy)
    x[(1, 0, *corner)] = bad
    y, dx = run(x, face, 5, 1.0, 0.5, dy=dy)
    rows, cols = (np.abs(np.arange(size) - at) for size, at in zip((6, 5), corner))
    touched = np.zeros(x.shape, bool)
    touched[1, 0] = np.maximum.outer(rows, cols) <= 2
    np.testing.assert_array_equal(y[~touched], clean_y[~touched])
    touched[1, 0] = np.maximum.outer(rows, cols) <= 4  # the gradient reaches the windows of those windows
    np.testing.assert_array_equal(dx[~touched], clean_dx[~touched])
    assert not np.isfinite(dx[1, 0]).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [1, 100, 10**9])  # elements: an image at a time, two images of 42, all five
def test_tiles_of_images_with_a_remainder(threads, tile, device, monkeypatch):
    monkeypatch.setattr("minigrad.ops._lrn_fast.TILE", tile)
    monkeypatch.setattr("minigrad.ops._lrn_fast.PIECE", 1)
    minigrad.set_num_threads(threads, device)
    x, dy = normal(5, 2, 7, 3), normal(5, 2, 7, 3, seed=1)
    y, dx = run(x, device, 5, 1.0, 0.5, dy=dy)
    for image in range(5):
        one = slice(image, image + 1)
        one_y, one_dx = run(x[one], device, 5, 1.0, 0.5, dy=dy[one])
        np.testing.assert_array_equal(y[one], one_y)
        np.testing.assert_array_equal(dx[one], one_dx)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("n", [3, 23])
def test_squares_may_overflow(n, face):
    """Also dy * x may, where dy * s^-beta does not."""
    x = np.full((1, 1, 13, 2), 3e38, np.float32)
    y, dx = run(x, face, n, dy=np.full(x.shape, 2.5, np.float32))
    assert (y == 0).all() and (dx == 0).all()


def test_any_strides_and_the_memory_order_of_the_result(device):
    x, dy = normal(2, 3, 7, 6), normal(2, 3, 7, 6, seed=1)
    expected = run(x, device, alpha=0.5, dy=dy)
    views = [
        Tensor(x[:, ::-1, ::-1].copy(), device=device).data[:, ::-1, ::-1],
        Tensor(np.asfortranarray(x), device=device).data,
        Tensor(np.repeat(x, 2, 3), device=device).data[..., ::2],
    ]
    for view in views:
        tensor = Tensor(x, requires_grad=True, device=device)
        tensor.data = view
        y = lrn_within_map(tensor, alpha=0.5)
        y.T.backward(Tensor(dy.T.copy(), device=device))  # dy reaches the op as a view, its axes in another order
        np.testing.assert_array_equal(y.numpy(), expected[0])
        np.testing.assert_array_equal(tensor.grad.numpy(), expected[1])
        if y.device.kind != "textbook":  # channels-last memory on cpu:N, and (N, C, H, W) on a card
            assert (y.data.transpose(0, 2, 3, 1) if y.device.on_host else y.data).flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 0, 5), (2, 3, 5, 5)])
def test_dtypes_and_empty_batches(shape, dtype, face):
    y, dx = run(np.ones(shape, dtype), face)
    assert y.shape == dx.shape == shape and y.dtype == dx.dtype == dtype


def test_same_bits_on_any_number_of_threads(device):
    x, dy = normal(5, 16, 9, 9).astype("f"), normal(5, 16, 9, 9, seed=1).astype("f")
    results = []
    for threads in (1, 3):
        minigrad.set_num_threads(threads, device)
        results.append(run(x, device, dy=dy))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_elements_beyond_32_bits(device, monkeypatch):
    x, dy = normal(2, 2, 3, 35).astype("f"), normal(2, 2, 3, 35, seed=1).astype("f")
    y, dx = last_images_of_many(lambda x: lrn_within_map(x, 3, 1.0, 0.5), x, dy, device, monkeypatch)
    expected = run(x.astype("d"), "cpu:0", 3, 1.0, 0.5, dy=dy)
    np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, expected[1], rtol=1e-5, atol=1e-6)


def test_refused(device):
    x = Tensor(np.zeros((1, 1, 4, 4)), device=device)
    with pytest.raises(ArgumentError, match="lrn_within_map: n must be odd, got 4"):
        lrn_within_map(x, n=4)
    with pytest.raises(ArgumentError, match="lrn_within_map: k must be > 0, got -1"):
        lrn_within_map(x, k=-1)
    with pytest.raises(ArgumentError, match="lrn_within_map: alpha must be >= 0"):
        lrn_within_map(x, alpha=-1)
    with pytest.raises(ShapeError, match=r"lrn_within_map: x must have 4 axes \(N, C, H, W\), it has 2"):
        lrn_within_map(Tensor(np.zeros((4, 4)), device=device))
    with pytest.raises(DTypeError, match="lrn_within_map: .*int64"):
        lrn_within_map(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device))
