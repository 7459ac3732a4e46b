"""max_pool2d against naive loops, PyTorch and onnxruntime; ties, NaN, padding; gradients by differences."""

import itertools

import numpy as np
import pytest
from far import last_images_of_many
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import onnx_run
from reference import max_pool2d_reference

import minigrad
from minigrad import Tensor, gradcheck
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops._pooling import in_tiles
from minigrad.ops.max_pool2d import max_pool2d


def distinct(*shape):
    """Shuffled values at least 0.1 apart: no ties, and no maximum that changes under a small step."""
    size = int(np.prod(shape))
    return (np.random.default_rng(size).permutation(size) - size / 2).reshape(shape) / 10


def run(x, device, *args, dy=None, **kwargs):
    """(y, dx) as arrays; dy is ones unless given."""
    tensor = Tensor(x, requires_grad=True, device=device)
    y = max_pool2d(tensor, *args, **kwargs)
    y.backward(Tensor(np.ones(y.shape) if dy is None else dy, device=device, dtype=x.dtype))
    return y.numpy(), tensor.grad.numpy()


CASES = [  # shape, kernel, stride, padding, dilation, ceil_mode
    ((2, 3, 7, 9), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
    ((2, 3, 8, 6), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), True),
    ((1, 5, 7, 8), (2, 3), (3, 1), ((1, 0), (0, 2)), (1, 1), False),
    ((2, 2, 9, 10), (3, 2), (2, 3), ((1, 1), (1, 1)), (2, 3), True),
    ((1, 2, 5, 5), (1, 1), (3, 2), ((0, 0), (0, 0)), (1, 1), False),
    ((1, 2, 6, 5), (6, 5), (1, 1), ((0, 0), (0, 0)), (1, 1), False),
    ((3, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), False),
    ((1, 2, 2, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (1, 1), False),
    ((1, 1, 18, 17), (17, 16), (1, 1), ((8, 8), (8, 8)), (1, 1), False),  # 272 taps: more than a byte counts
    ((3, 4, 13, 11), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), False),  # 1,716 pixels: several blocks of threads
    ((2, 3, 12, 13), (3, 2), (1, 2), ((2, 1), (0, 1)), (2, 3), True),
    ((2, 7, 9, 12), (3, 3), (2, 2), ((1, 0), (0, 1)), (1, 1), False),  # AlexNet's windows, with padding
    ((2, 7, 8, 9), (3, 3), (2, 2), ((2, 2), (1, 1)), (1, 1), True),
    ((3, 2, 2, 3), (3, 3), (2, 2), ((0, 1), (1, 0)), (1, 1), False),
    ((2, 3, 11, 9), (3, 3), (3, 1), ((0, 0), (1, 1)), (1, 1), False),
    ((2, 3, 9, 11), (3, 3), (2, 2), ((1, 1), (1, 1)), (2, 2), False),
    ((2, 3, 12, 8), (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), False),  # a last row and column that no window sees
    ((2, 3, 2, 3), (3, 5), (2, 3), ((0, 0), (1, 0)), (1, 1), True),  # windows larger than the image
    ((1, 17, 6, 5), (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), True),  # so many channels are not copied
    ((3, 6, 8, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),  # windows side by side, as LeNet's
    ((2, 17, 7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),  # a last row and column in none of them
    ((2, 3, 7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), True),  # or in windows that overhang
    ((2, 5, 3, 7), (1, 2), (1, 2), ((0, 0), (0, 0)), (1, 1), False),
    ((2, 1, 9, 4), (4, 1), (4, 1), ((0, 0), (0, 0)), (1, 1), False),
    ((2, 1, 6, 4), (2, 2), (2, 2), ((1, 0), (0, 0)), (1, 1), False),
    ((2, 4, 6, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (2, 1), False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("values", ["distinct", "zeros and ties"])
def test_matches_the_naive_loops(case, values, device):
    shape, *settings_ = case
    x = distinct(*shape) if values == "distinct" else np.maximum(np.round(distinct(*shape) / 5), 0)
    y, _ = max_pool2d_reference(x, *settings_)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y, dx = max_pool2d_reference(x, *settings_, dy=dy)
    ours, our_dx = run(x, device, *settings_, dy=dy)
    np.testing.assert_array_equal(ours, y)
    np.testing.assert_allclose(our_dx, dx, rtol=1e-13, atol=1e-13)
    without_gradient = max_pool2d(Tensor(x, device=device), *settings_)
    np.testing.assert_array_equal(without_gradient.numpy(), y)


def special(*shape):
    """Ties, both infinities and NaN, and windows full of each: the first image is all -inf, but for one pixel."""
    x = np.round(distinct(*shape))
    choice = np.random.default_rng(7).integers(0, 8, shape)
    for value, number in (np.nan, 0), (np.inf, 1), (-np.inf, 2):
        x[choice == number] = value
    x[:1] = -np.inf
    x[:1, -1, -1, -1] = 0
    return x


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("values", [distinct, special])
@pytest.mark.parametrize("face", ["textbook:0", "cpu:0"])
def test_both_faces_of_the_cpu_match_the_naive_loops(case, values, face):
    shape, *settings_ = case
    x = values(*shape)
    dy = np.random.default_rng(1).standard_normal(max_pool2d_reference(x, *settings_)[0].shape)
    dy[-1, -1, 0, 0] = np.inf  # what goes to the winner leaves the other pixels alone
    expected = max_pool2d_reference(x, *settings_, dy=dy)
    y, dx = run(x, face, *settings_, dy=dy)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_allclose(dx, expected[1], rtol=1e-13, atol=1e-13)
    single = run(x.astype("f"), face, *settings_, dy=dy.astype("f"))
    assert [array.dtype for array in single] == ["float32", "float32"]
    np.testing.assert_array_equal(single[0], expected[0].astype("f"))
    np.testing.assert_allclose(single[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES[:5] + CASES[7:8], ids=str)
def test_gradient_of_every_element(case, device):
    shape, *settings_ = case
    x = Tensor(distinct(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: max_pool2d(x, *settings_), [x])


@pytest.mark.parametrize("shape", [(2, 48, 55, 55), (3, 128, 27, 27), (2, 256, 13, 13)], ids=str)
def test_gradient_at_alexnet_shapes(shape, device):
    x = Tensor(distinct(*shape) / 1000, requires_grad=True, device=device)  # still 100 steps apart
    assert gradcheck(lambda x: max_pool2d(x, 3, 2), [x], direction=True)


def test_shapes_of_alexnet_and_of_ceil_mode(device):
    for size, ceil, out in [(55, 0, 27), (27, 0, 13), (13, 0, 6), (32, 1, 16), (32, 0, 15), (8, 1, 4)]:
        x = Tensor(np.zeros((1, 1, size, size)), device=device)
        assert max_pool2d(x, 3, 2, ceil_mode=bool(ceil)).shape == (1, 1, out, out)


def test_ceil_mode_drops_a_window_that_starts_in_the_trailing_padding(device):
    x = Tensor(np.zeros((1, 1, 5, 5)), device=device)
    # Windows start at -1, 2, 5: the third would lie wholly beyond the five pixels.
    assert max_pool2d(x, 3, 3, padding=1, ceil_mode=True).shape == (1, 1, 2, 2)


def test_stride_is_the_kernel_by_default(device):
    x = Tensor(distinct(1, 1, 6, 6), device=device)
    np.testing.assert_array_equal(max_pool2d(x, (2, 3)).numpy(), max_pool2d(x, (2, 3), (2, 3)).numpy())
    assert max_pool2d(x, (2, 3)).shape == (1, 1, 3, 2)


# ---------------------------------------------------------------- who takes the gradient


def test_first_maximum_of_the_window_takes_the_gradient(device):
    x = np.zeros((1, 1, 3, 3), np.float32)
    assert run(x, device, 3)[1].ravel().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    x[0, 0] = [[0, 0, 7], [7, 0, 0], [7, 7, 7]]  # row 0 comes first, though column 0 has one too
    assert run(x, device, 3)[1].ravel().tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    x[0, 0] = [[0, 0, 0], [0, 7, 7], [7, 0, 0]]
    assert run(x, device, 3)[1].ravel().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_plus_and_minus_zero_tie(device):
    x = np.array([-0.0, 0.0]).reshape(1, 1, 1, 2)
    assert run(x, device, (1, 2))[1].ravel().tolist() == [1, 0]


def test_nan_wins_and_the_first_nan_takes_the_gradient(device):
    x = np.array([[1, np.nan, np.inf, 3, 4], [np.nan, 9, 5, 5, 8]]).reshape(1, 1, 2, 5)
    y, dx = run(x, device, 2, 1)
    np.testing.assert_array_equal(y[0, 0], [[np.nan, np.nan, np.inf, 8]])
    np.testing.assert_array_equal(dx[0, 0], [[0, 2, 1, 0, 0], [0, 0, 0, 0, 1]])
    y, dx = run(x.astype(np.float32), device, 2, 3, padding=1)  # windows that start outside of the image
    np.testing.assert_array_equal(y[0, 0], [[1, np.inf]])
    np.testing.assert_array_equal(dx[0, 0], [[1, 0, 1, 0, 0], [0] * 5])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_go_to_the_winner_alone(dtype, device):
    x, dy = np.array([[[[1, 2, 4, 3], [0, 1, 0, 1]]]], dtype), np.array([[[[np.nan, -np.inf]]]], dtype)
    np.testing.assert_array_equal(run(x, device, 2, dy=dy)[1], [[[[0, np.nan, -np.inf, 0], [0, 0, 0, 0]]]])


def test_padding_never_wins(device):
    x = np.full((1, 2, 4, 4), -5.0)
    y, dx = run(x, device, 3, 2, padding=1)
    assert (y == -5).all() and dx.sum() == y.size
    # Minus infinity ties with what padding is usually filled with: the gradient stays in the image.
    y, dx = run(np.full((1, 2, 4, 4), -np.inf), device, 3, 2, padding=1)
    assert (y == -np.inf).all() and dx.sum() == y.size
    assert dx[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]


def test_gradients_add_where_windows_overlap(device):
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1
    dy = np.array([[1.0, 2], [4, 8]]).reshape(1, 1, 2, 2)
    _, dx = run(x, device, 3, 2, dy=dy)
    assert dx[0, 0, 2, 2] == 15 and dx.sum() == 15


# ---------------------------------------------------------------- memory, dtypes, repeatability


def test_any_strides_and_the_memory_order_of_the_result(device):
    x = distinct(2, 5, 9, 9)
    dy = np.random.default_rng(0).standard_normal((2, 5, 4, 4))
    expected = run(x, device, 3, 2, dy=dy)
    views = [
        Tensor(x[:, ::-1, ::-1].copy(), device=device).data[:, ::-1, ::-1],
        Tensor(np.asfortranarray(x), device=device).data,
        Tensor(np.repeat(x, 2, 3), device=device).data[..., ::2],
    ]
    for view in views:
        tensor = Tensor(x, requires_grad=True, device=device)
        tensor.data = view
        y = max_pool2d(tensor, 3, 2)
        y.T.backward(Tensor(dy.T.copy(), device=device))  # dy reaches the op as a view, its axes in another order
        np.testing.assert_array_equal(y.numpy(), expected[0])
        np.testing.assert_array_equal(tensor.grad.numpy(), expected[1])
        if y.device.kind != "textbook":  # channels-last memory on the CPU, (N, C, H, W) on a card
            assert (y.data.transpose(0, 2, 3, 1) if y.device.on_host else y.data).flags.c_contiguous


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [1, 400, 700, 10**9])  # elements: tiles of 1, 2 and 3 images of 180; all 7 at once
@pytest.mark.parametrize("padding", [0, ((1, 0), (1, 1))], ids=str)
def test_tiles_of_images_with_a_remainder(threads, tile, padding, device, monkeypatch):
    monkeypatch.setattr("minigrad.ops._pooling.TILE", tile)
    minigrad.set_num_threads(threads, device)
    x = np.maximum(np.round(distinct(7, 5, 6, 6) / 20), 0)
    x[2, 1, 3, 4] = x[5, 0, 0, 1] = np.nan
    dy = np.random.default_rng(0).standard_normal(max_pool2d(Tensor(x), 3, 2, padding).shape)
    y, dx = run(x, device, 3, 2, padding, dy=dy)
    for image in range(7):
        one = slice(image, image + 1)
        one_y, one_dx = run(x[one], device, 3, 2, padding, dy=dy[one])
        np.testing.assert_array_equal(y[one], one_y)
        np.testing.assert_array_equal(dx[one], one_dx)
        if image not in (2, 5):
            frame = padding or ((0, 0), (0, 0))
            expected = max_pool2d_reference(x[one], (3, 3), (2, 2), frame, (1, 1), False, dy=dy[one])
            np.testing.assert_array_equal(y[one], expected[0])
            np.testing.assert_allclose(dx[one], expected[1], rtol=1e-13, atol=1e-13)
    inference = max_pool2d(Tensor(x, device=device), 3, 2, padding)
    np.testing.assert_array_equal(inference.numpy(), y)


@pytest.mark.parametrize("tile", [1, 400, 700, 10**9])
def test_each_image_is_in_one_tile(tile, monkeypatch):
    monkeypatch.setattr("minigrad.ops._pooling.TILE", tile)
    minigrad.set_num_threads(2, "cpu:0")
    images = []
    in_tiles(minigrad.device("cpu:0"), (7, 5, 6, 6), lambda some: images.extend(range(some.start, some.stop)))
    assert sorted(images) == list(range(7))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5)])
def test_empty_batches(shape, dtype, device):
    y, dx = run(np.zeros(shape, dtype), device, 3, 2)
    assert y.shape == (*shape[:2], 2, 2) and dx.shape == shape and y.dtype == dx.dtype == dtype


def test_same_bits_every_time_on_any_number_of_threads(device):
    x = np.maximum(np.random.default_rng(0).standard_normal((5, 16, 27, 27)), 0).astype(np.float32)
    dy = np.random.default_rng(1).standard_normal((5, 16, 13, 13)).astype(np.float32)
    results = []
    for threads in (1, 2, 3, 3):
        minigrad.set_num_threads(threads, device)
        results.append(run(x, device, 3, 2, dy=dy))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


def test_backward_keeps_one_byte_per_output(device):
    if minigrad.device(device).kind == "textbook":
        pytest.skip("the textbook keeps what argmax returns: eight bytes")
    y = max_pool2d(Tensor(distinct(2, 3, 9, 9), requires_grad=True, device=device), 3, 2)
    assert sum(value.nbytes for value in vars(y.node).values() if hasattr(value, "nbytes")) == y.size


def test_a_stride_beyond_32_bits_leaves_one_window(device):
    x = distinct(1, 2, 5, 4)
    y, dx = run(x, device, 3, 2**40)
    np.testing.assert_array_equal(y, x[:, :, :3, :3].max((2, 3), keepdims=True))
    np.testing.assert_array_equal(np.argwhere(dx), np.argwhere(x == y))
    y, dx = run(x, device, (1, 2), 1, 0, (2**40, 1))
    np.testing.assert_array_equal(y, np.maximum(x[..., :-1], x[..., 1:]))
    assert dx.sum() == y.size


def test_elements_beyond_32_bits(device, monkeypatch):
    x, dy = distinct(2, 2, 3, 5).astype("f"), distinct(2, 2, 2, 6).astype("f")
    y, dx = last_images_of_many(lambda x: max_pool2d(x, 2, 1, (0, 1)), x, dy, device, monkeypatch)
    expected = max_pool2d_reference(x, (2, 2), (1, 1), ((0, 0), (1, 1)), dy=dy)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_allclose(dx, expected[1], rtol=1e-6)


# ---------------------------------------------------------------- other implementations


@st.composite
def configurations(draw):
    """(shape, kernel, stride, padding, dilation, ceil_mode) that PyTorch accepts too."""
    axes = []
    for _ in range(2):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        reach = dilation * (kernel - 1) + 1
        padding = draw(st.integers(0, kernel // 2))
        # At least as many pixels as the dilation: then each window that PyTorch accepts meets one of them.
        size = draw(st.integers(max(1, reach - 2 * padding, reach // 2 + 1), reach + 7))
        axes.append((size, kernel, draw(st.integers(1, 4)), padding, dilation))
    sizes, kernel, stride, padding, dilation = zip(*axes)
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes)
    return shape, kernel, stride, padding, dilation, draw(st.booleans())


@settings(max_examples=80)
@given(configurations(), st.booleans(), st.integers(0, 1000))
def test_matches_pytorch(device, configuration, ties, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    shape, *rest = configuration
    x = np.random.default_rng(seed).standard_normal(shape)
    x = np.maximum(np.round(x), 0) if ties else x
    theirs = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(theirs, *rest)
    dy = np.random.default_rng(seed + 1).standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    ours, dx = run(x, device, *rest, dy=dy)
    np.testing.assert_array_equal(ours, y.detach().numpy())
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_every_small_window_as_pytorch(device, ceil_mode):
    """Values, gradients and refusals along one axis of few pixels, with every window, stride, padding and dilation."""
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    for size, kernel, stride, dilation in itertools.product(range(1, 7), range(1, 6), range(1, 5), range(1, 4)):
        x = distinct(1, 1, size, 3)
        for padding in range(kernel // 2 + 1):
            rest = (kernel, 2), (stride, 1), (padding, 0), (dilation, 2), ceil_mode
            theirs = torch.tensor(x, requires_grad=True)
            try:
                expected = torch.nn.functional.max_pool2d(theirs, *rest)
            except RuntimeError:
                expected = None
            if expected is None or torch.isinf(expected).any():  # -inf: of a window that sees nothing but padding
                with pytest.raises(ShapeError, match="max_pool2d: .*(does not fit|would see padding only)"):
                    max_pool2d(Tensor(x, device=device), *rest)
                continue
            dy = distinct(*expected.shape)
            expected.backward(torch.tensor(dy))
            y, dx = run(x, device, *rest, dy=dy)
            np.testing.assert_array_equal(y, expected.detach().numpy(), err_msg=f"{size}, {rest}")
            np.testing.assert_allclose(dx, theirs.grad.numpy(), 1e-12, 1e-12, err_msg=f"{size}, {rest}")


@pytest.mark.parametrize(
    "shape, kernel, stride, pads",
    [((1, 2, 2, 2), [3, 3], [2, 2], [0] * 4), ((1, 1, 1, 3), [4, 5], [3, 2], [0, 0, 1, 1])],
)
def test_a_window_larger_than_the_image_as_onnxruntime(device, shape, kernel, stride, pads):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = onnx_run("MaxPool", x, kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=1)
    padding = tuple(zip(pads[:2], pads[2:]))
    y = max_pool2d(Tensor(x, device=device), tuple(kernel), tuple(stride), padding, ceil_mode=True).numpy()
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(y, x.max((2, 3), keepdims=True))


@settings(max_examples=60)
@given(configurations(), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1000))
def test_matches_onnxruntime(device, configuration, more_bottom, more_right, seed):
    shape, kernel, stride, (ph, pw), dilation, ceil_mode = configuration
    bottom, right = min(ph + more_bottom, kernel[0] - 1), min(pw + more_right, kernel[1] - 1)  # asymmetric
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = onnx_run(
        "MaxPool",
        x,
        kernel_shape=kernel,
        strides=stride,
        pads=[ph, pw, bottom, right],
        dilations=dilation,
        ceil_mode=int(ceil_mode),
    )
    y = max_pool2d(Tensor(x, device=device), kernel, stride, ((ph, bottom), (pw, right)), dilation, ceil_mode)
    np.testing.assert_array_equal(y.numpy(), expected)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (ShapeError, "does not fit the padded input 4x4", [5], {}),
        (ShapeError, "window 5x5 .kernel 3x3, dilation", [3], {"dilation": 2}),
        (ShapeError, "2 of 6 windows along the height would see padding only: kernel 1", [1, 1, (1, 0)], {}),
        (ShapeError, "along the width would see padding only", [2, 1, ((0, 0), (0, 2))], {}),
        (ArgumentError, "kernel_size must be an integer >= 1, got 0", [0], {}),
        (ArgumentError, "kernel_size must be an integer >= 1, got True", [True], {}),
        (ArgumentError, "kernel_size must be an integer >= 1, got 2.0", [2.0], {}),
        (ArgumentError, "stride must be an integer >= 1, got 0", [2, 0], {}),
        (ArgumentError, "padding must be an integer >= 0, got -1", [2, 1, -1], {}),
        (ArgumentError, "dilation must be an integer >= 1, got 0", [2], {"dilation": 0}),
    ],
)
def test_refused_settings(error, match, args, kwargs, device):
    with pytest.raises(error, match="max_pool2d: .*" + match):
        max_pool2d(Tensor(np.zeros((1, 1, 4, 4)), device=device), *args, **kwargs)


def test_refused_inputs(device):
    with pytest.raises(ShapeError, match=r"max_pool2d: x must have 4 axes \(N, C, H, W\), it has 3"):
        max_pool2d(Tensor(np.zeros((1, 4, 4)), device=device), 2)
    with pytest.raises(DTypeError, match="max_pool2d: .*int64"):
        max_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device), 2)
    with pytest.raises(DTypeError, match="x must be a Tensor, got ndarray"):
        max_pool2d(np.zeros((1, 1, 4, 4)), 2)
