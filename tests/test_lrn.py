"""lrn against naive loops, PyTorch and onnxruntime; gradients by differences, with alpha that matters."""

import numpy as np
import pytest
from far import last_images_of_many
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import onnx_run
from reference import lrn_gradient_reference, lrn_reference

import minigrad
from minigrad import Tensor, gradcheck
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops._lrn_fast import ChannelSums, in_tiles
from minigrad.ops.lrn import LRN, lrn

CASES = [  # shape, n, k, alpha, beta, groups
    ((2, 7, 3, 2), 5, 2.0, 0.5, 0.75, 1),
    ((2, 8, 2, 3), 5, 2.0, 0.5, 0.75, 2),
    ((1, 6, 2, 2), 3, 1.0, 0.4, 0.5, 1),
    ((1, 9, 2, 2), 7, 0.5, 0.6, 1.3, 3),  # the window is wider than a group
    ((2, 5, 1, 1), 1, 1.0, 0.5, 0.75, 1),
    ((1, 3, 2, 2), 9, 2.0, 0.5, 0.75, 1),  # and wider than all channels
    ((1, 4, 2, 2), 5, 2.0, 0.5, 0.75, 4),
    ((1, 4, 2, 2), 3, 2.0, 0.5, 0.0, 1),
    ((1, 6, 2, 3), 5, 2.0, 0.5, -0.6, 2),
    ((2, 5, 2, 2), 3, 0.1, 0.0, 0.75, 1),
    ((1, 4, 1, 3), 2**63 - 1, 1.0, 0.5, 2.5, 1),
]
LARGE = [  # more than 32 channels or 128 pixels, which is what a block of threads has, and some left over
    ((2, 37, 5, 7), 5, 2.0, 0.5, 0.75, 1),
    ((3, 70, 3, 7), 3, 1.0, 0.4, 0.5, 2),
    ((1, 101, 3, 13), 67, 2.0, 0.5, 0.75, 1),  # windows that reach from one block beyond the next
    ((2, 68, 1, 17), 69, 0.5, 0.1, 1.3, 2),
    ((2, 64, 2, 16), 5, 2.0, 0.5, 0.75, 1),  # nothing left over
    ((1, 40, 2, 5), 17, 2.0, 0.5, 0.75, 1),  # the widest window that a thread of a card has in its registers
    ((1, 40, 2, 5), 19, 2.0, 0.5, 0.75, 2),  # and one that is wider
    ((5, 7, 1, 33), 7, 1.0, 0.5, 0.75, 1),  # 165 pixels
    ((2, 16, 3, 3), 5, 2.0, 0.5, 0.75, 1),  # one block of 16 channels, and two in each of two groups
    ((2, 64, 3, 2), 3, 1.0, 0.4, 0.6, 2),
    ((1, 48, 2, 3), 41, 2.0, 0.5, 0.75, 1),  # windows wider than a block; and as wide as can be
    ((1, 32, 2, 3), 2**63 - 1, 2.0, 0.5, 0.75, 1),
    ((1, 32, 2, 3), 1, 2.0, 0.5, 0.75, 1),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def run(x, device, *args, dy=None, **kwargs):
    tensor = Tensor(x, requires_grad=True, device=device)
    y = lrn(tensor, *args, **kwargs)
    y.backward(Tensor(np.ones(y.shape) if dy is None else dy, device=device, dtype=x.dtype))
    return y.numpy(), tensor.grad.numpy()


@pytest.fixture(params=["under test", "textbook:0"])
def face(request, device):
    """The device under test, and the textbook's face."""
    return device if request.param == "under test" else request.param


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_matches_the_naive_loops(case, face):
    shape, *rest = case
    x, dy = normal(*shape) * 3, normal(*shape, seed=1)
    y, dx = run(x, face, *rest, dy=dy)
    np.testing.assert_allclose(y, lrn_reference(x, *rest), rtol=1e-13)
    if case in CASES:
        np.testing.assert_allclose(dx, lrn_gradient_reference(x, dy, *rest), rtol=1e-11, atol=1e-13)
    same = run(x, "cpu:0", *rest, dy=dy)
    np.testing.assert_allclose(y, same[0], rtol=1e-13)
    np.testing.assert_allclose(dx, same[1], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_of_every_element(case, face):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=face)
    assert gradcheck(lambda x: lrn(x, *rest), [x])


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_gradient_of_many_channels(case, device):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: lrn(x, *rest), [x], direction=True)


@pytest.mark.parametrize(("shape", "groups"), [((2, 96, 55, 55), 2), ((2, 256, 27, 27), 1)], ids=str)
def test_gradient_at_alexnet_shapes(shape, groups, device):
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: lrn(x, alpha=0.5, groups=groups), [x], direction=True)


def test_defaults_are_the_papers(device):
    x = normal(1, 7, 2, 2) * 100
    expected = lrn_reference(x, n=5, k=2, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(lrn(Tensor(x, device=device)).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("channels", [11, 16])
def test_tiles_with_a_remainder(channels, device, monkeypatch):
    tile = 37 * 41 * channels + 1  # elements
    monkeypatch.setattr("minigrad.ops._lrn_fast.TILE", tile)
    monkeypatch.setattr("minigrad.ops._lrn_fast.PIECE", 1)
    x = normal(3, channels, 37, 41)[..., 1:]
    y, dx = run(x, device, alpha=0.5)
    for image in range(3):  # one image is one tile
        assert x[image].size < tile
        one_y, one_dx = run(x[image : image + 1], device, alpha=0.5)
        np.testing.assert_array_equal(y[image : image + 1], one_y)
        np.testing.assert_array_equal(dx[image : image + 1], one_dx)


def test_every_row_is_in_one_tile(monkeypatch):
    monkeypatch.setattr("minigrad.ops._lrn_fast.TILE", 4 * 3)  # 4 rows, and 8 where threads work side by side
    monkeypatch.setattr("minigrad.ops._lrn_fast.PIECE", 1)
    minigrad.set_num_threads(3)
    function = LRN(3, 2.0, 0.5, 0.75)
    function.device = minigrad.device("cpu:0")
    visits = np.zeros((100, 3))

    def visit(op, sums, spare, tile):
        assert all(a.shape == tile.shape for a in spare)
        tile += 1

    in_tiles(function, visit, ChannelSums, (1,), visits)
    assert (visits == 1).all()


def test_groups_are_independent(face):
    x, dy = normal(2, 10, 3, 3), normal(2, 10, 3, 3, seed=1)
    y, dx = run(x, face, alpha=0.5, groups=2, dy=dy)
    for half in (slice(0, 5), slice(5, 10)):
        one_y, one_dx = run(x[:, half], face, alpha=0.5, dy=dy[:, half])
        np.testing.assert_array_equal(y[:, half], one_y)
        np.testing.assert_array_equal(dx[:, half], one_dx)
    assert not np.allclose(y, run(x, face, alpha=0.5)[0])


def test_calls_of_different_shapes_do_not_disturb_each_other(device):
    small, large = normal(1, 4, 2, 2), normal(1, 9, 5, 5)
    before = run(small, device, alpha=0.5)
    run(large, device, 7, alpha=0.5)
    after = run(small, device, alpha=0.5)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_inf_stay_in_their_windows(bad, face):
    x = np.ones((2, 9, 1, 2), np.float32)
    x[0, 3, 0, 1] = bad
    y, dx = run(x, face, n=3)
    # inf / inf = NaN in the channel itself; its neighbours are divided by NaN or inf; nobody else notices.
    np.testing.assert_array_equal(np.argwhere(np.isnan(y))[:, 1], [3] if bad == np.inf else [2, 3, 4])
    assert (y[0, [2, 4], 0, 1] == 0).all() == (bad == np.inf)
    touched = np.zeros(x.shape, bool)
    touched[0, 1:6, 0, 1] = True  # the gradient reaches the windows of those windows
    clean = run(np.ones_like(x), face, n=3)[1]
    np.testing.assert_array_equal(dx[~touched], clean[~touched])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n", [3, 5, 9, 11])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_and_inf_stay_in_their_pixel_and_their_group(bad, groups, n, face):
    x, dy = normal(1, 12, 1, 5), normal(1, 12, 1, 5, seed=1)  # five pixels side by side in memory
    clean_y, clean_dx = run(x, face, n, 2.0, 0.5, groups=groups, dy=dy)
    x[0, [0, 12 // groups - 1], 0, 2] = bad  # the outermost channels of the first group
    y, dx = run(x, face, n, 2.0, 0.5, groups=groups, dy=dy)
    assert not np.isfinite(dx).all()
    other_pixels = [0, 1, 3, 4]
    np.testing.assert_array_equal(y[..., other_pixels], clean_y[..., other_pixels])
    np.testing.assert_array_equal(dx[..., other_pixels], clean_dx[..., other_pixels])
    np.testing.assert_array_equal(y[:, 12 // groups :], clean_y[:, 12 // groups :])
    np.testing.assert_array_equal(dx[:, 12 // groups :], clean_dx[:, 12 // groups :])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])  # the square of the last is infinite
@pytest.mark.parametrize("where", [0, 15, 16, 30, 47])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_nan_and_inf_as_the_textbook_has_them(bad, where, groups, device):
    x, dy = normal(2, 48, 1, 5).astype("f"), normal(2, 48, 1, 5, seed=1).astype("f")
    for into in "x", "dy":
        arrays = {"x": x.copy(), "dy": dy.copy()}
        arrays[into][0, where, 0, 2] = bad
        ours = run(arrays["x"], device, alpha=0.5, groups=groups, dy=arrays["dy"])
        textbook = run(arrays["x"], "textbook:0", alpha=0.5, groups=groups, dy=arrays["dy"])
        for a, b in zip(ours, textbook):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_tiles_after_one_that_has_nan(device, monkeypatch):
    monkeypatch.setattr("minigrad.ops._lrn_fast.TILE", 32 * 4)  # 4 pixels of 32 channels
    monkeypatch.setattr("minigrad.ops._lrn_fast.PIECE", 1)
    x = normal(1, 32, 1, 22)
    clean = run(x, device, alpha=0.5)
    x[0, 3, 0, 5] = x[0, 31, 0, 19] = np.nan
    touched = np.zeros(x.shape, bool)
    touched[..., [5, 19]] = True
    for a, b in zip(run(x, device, alpha=0.5), clean):
        assert np.isnan(a).any()
        np.testing.assert_allclose(a[~touched], b[~touched], rtol=1e-13)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("n", [3, 23])
def test_squares_may_overflow(n, face):
    """Also dy * x may, where dy * s^-beta does not."""
    x = np.full((1, 13, 1, 1), 3e38, np.float32)
    y, dx = run(x, face, n, dy=np.full(x.shape, 2.5, np.float32))
    assert (y == 0).all() and (dx == 0).all()


def test_tiny_values(face):
    x = np.array([1e-25, 1e-38, 0, 1e-42, 1e-20], np.float32).reshape(1, 5, 1, 1)
    # CUDA kernels take float32 below the least normal number for 0.
    least = 0 if face.startswith("cpu") else np.finfo(np.float32).tiny
    np.testing.assert_allclose(lrn(Tensor(x, device=face), k=1.0).numpy(), x, rtol=1e-6, atol=least)


@pytest.mark.parametrize("shape", [(1, 5, 1, 2), (1, 40, 2, 3)])
def test_infinite_powers_beyond_the_borders_add_nothing(shape, face):
    """Every channel has a neighbour that is not 0, and a finite s^-beta; a channel before the first would have none."""
    x = 1 + np.abs(normal(*shape)).astype(np.float32)
    x[:, [0, -1]] = 0
    settings = 3, 1e-30, 1.0, 2.0
    dx = run(x, face, *settings)[1]
    np.testing.assert_allclose(dx, run(x.astype(float), "textbook:0", *settings)[1], rtol=1e-4, atol=1e-6)


def test_any_strides_and_the_memory_order_of_the_result(device):
    x, dy = normal(2, 7, 5, 6), normal(2, 7, 5, 6, seed=1)
    expected = run(x, device, alpha=0.5, dy=dy)
    views = [
        Tensor(x[:, ::-1, ::-1].copy(), device=device).data[:, ::-1, ::-1],
        Tensor(np.asfortranarray(x), device=device).data,
        Tensor(np.repeat(x, 2, 3), device=device).data[..., ::2],
    ]
    for view in views:
        tensor = Tensor(x, requires_grad=True, device=device)
        tensor.data = view
        y = lrn(tensor, alpha=0.5)
        y.T.backward(Tensor(dy.T.copy(), device=device))  # dy reaches the op as a view, its axes in another order
        np.testing.assert_array_equal(y.numpy(), expected[0])
        np.testing.assert_array_equal(tensor.grad.numpy(), expected[1])
        if y.device.kind != "textbook":  # channels-last memory on cpu:N, and (N, C, H, W) on a card
            assert (y.data.transpose(0, 2, 3, 1) if y.device.on_host else y.data).flags.c_contiguous


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 0, 5), (2, 3, 5, 5)])
def test_dtypes_and_empty_batches(shape, dtype, beta, face):
    y, dx = run(np.ones(shape, dtype), face, beta=beta)
    assert y.shape == dx.shape == shape and y.dtype == dx.dtype == dtype


def test_same_bits_on_any_number_of_threads(device):
    x, dy = normal(5, 48, 13, 55).astype("f"), normal(5, 48, 13, 55, seed=1).astype("f")
    results = []
    for threads in (1, 3):
        minigrad.set_num_threads(threads, device)
        results.append(run(x, device, dy=dy))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("shape", "groups", "elements"),
    [((2, 3, 3, 5), 1, 2**31), ((2, 3, 3, 5), 3, 2**31), ((33, 1, 1, 1), 1, 2**31), ((33, 1, 1, 1), 1, 2**32)],
    ids=str,
)
def test_elements_and_pixels_beyond_32_bits(shape, groups, elements, device, monkeypatch):
    x, dy = normal(*shape).astype("f"), normal(*shape, seed=1).astype("f")

    def op(x):
        return lrn(x, 3, 2.0, 0.5, groups=groups)

    y, dx = last_images_of_many(op, x, dy, device, monkeypatch, elements)
    expected = run(x.astype("d"), "cpu:0", 3, 2.0, 0.5, groups=groups, dy=dy)
    np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, expected[1], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- others, who divide alpha by n


configurations = st.tuples(
    st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4)),  # shape
    st.sampled_from([1, 3, 5, 7, 9]),  # n
    st.floats(0.5, 3),  # k
    st.floats(0.01, 1),  # alpha; onnxruntime refuses 0
    st.one_of(st.just(0.75), st.floats(0.1, 2)),  # beta
    st.integers(0, 1000),  # seed
)


@settings(max_examples=80)
@given(configurations)
def test_matches_pytorch(device, configuration):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    shape, n, k, alpha, beta, seed = configuration
    x, dy = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    theirs = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.local_response_norm(theirs, n, alpha * n, beta, k)
    y.backward(torch.tensor(dy))
    ours, dx = run(x, device, n, k, alpha, beta, dy=dy)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-11, atol=1e-12)


@settings(max_examples=60)
@given(configurations)
def test_matches_onnxruntime(device, configuration):
    shape, n, k, alpha, beta, seed = configuration
    x = normal(*shape, seed=seed).astype(np.float32)
    expected = onnx_run("LRN", x, size=n, bias=k, alpha=alpha * n, beta=beta)
    y = lrn(Tensor(x, device=device), n, k, alpha, beta).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (ArgumentError, "n must be odd, got 4", {"n": 4}),
        (ArgumentError, "n must be an integer >= 1, got 0", {"n": 0}),
        (ArgumentError, "n must be an integer >= 1, got 5.0", {"n": 5.0}),
        (ArgumentError, "k must be > 0, got 0", {"k": 0}),
        (ArgumentError, "k must be a finite number, got nan", {"k": float("nan")}),
        (ArgumentError, "alpha must be >= 0, got -0.1", {"alpha": -0.1}),
        (ArgumentError, "alpha must be a finite number, got '1'", {"alpha": "1"}),
        (ArgumentError, "beta must be a finite number, got inf", {"beta": float("inf")}),
        (ArgumentError, "groups must be an integer >= 1, got 0", {"groups": 0}),
        (ShapeError, "the channels must divide into 4 groups, x has 6", {"groups": 4}),
    ],
)
def test_refused_settings(error, match, kwargs, device):
    with pytest.raises(error, match="lrn: .*" + match):
        lrn(Tensor(np.zeros((1, 6, 2, 2)), device=device), **kwargs)


def test_refused_inputs(device):
    with pytest.raises(ShapeError, match=r"lrn: x must have 4 axes \(N, C, H, W\), it has 2"):
        lrn(Tensor(np.zeros((1, 4)), device=device))
    with pytest.raises(DTypeError, match="lrn: .*int64"):
        lrn(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device))
