"""avg_pool2d against naive loops, PyTorch and onnxruntime, its divisors; gradients by differences."""

import itertools

import numpy as np
import pytest
from far import last_images_of_many
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import onnx_run
from reference import avg_pool2d_reference

import minigrad
from minigrad import Tensor, gradcheck
from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.ops.avg_pool2d import avg_pool2d

NO_PADDING = ((0, 0), (0, 0))
CASES = [  # shape, kernel, stride, padding, ceil_mode
    ((2, 3, 7, 9), (3, 3), (2, 2), NO_PADDING, False),
    ((2, 3, 8, 6), (3, 3), (2, 2), NO_PADDING, True),
    ((1, 5, 7, 8), (2, 3), (3, 1), ((1, 0), (0, 2)), False),
    ((2, 2, 9, 10), (4, 3), (3, 4), ((2, 2), (1, 1)), True),
    ((1, 2, 8, 8), (3, 3), (3, 3), ((1, 2), (0, 1)), True),
    ((1, 2, 5, 5), (1, 1), (3, 2), NO_PADDING, False),
    ((1, 2, 6, 5), (6, 5), (1, 1), NO_PADDING, False),
    ((3, 2, 1, 1), (1, 1), (1, 1), NO_PADDING, False),
    ((2, 3, 2, 3), (3, 5), (2, 3), ((0, 0), (1, 0)), True),  # windows larger than the image
]
LARGE = [  # some blocks of threads each
    ((3, 4, 13, 11), (3, 3), (2, 2), NO_PADDING, False),
    ((2, 7, 9, 12), (3, 3), (2, 2), ((1, 0), (0, 1)), False),
    ((2, 7, 8, 9), (3, 3), (2, 2), ((1, 1), (1, 1)), True),
    ((2, 3, 12, 8), (3, 3), (2, 2), NO_PADDING, False),  # a last row and column that no window sees
    ((1, 3, 14, 9), (3, 3), (3, 1), ((0, 1), (1, 0)), False),
    ((2, 3, 12, 13), (5, 4), (1, 3), ((2, 1), (0, 2)), True),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def run(x, device, *args, dy=None, **kwargs):
    """(y, dx) as arrays; dy is ones unless given."""
    tensor = Tensor(x, requires_grad=True, device=device)
    y = avg_pool2d(tensor, *args, **kwargs)
    y.backward(Tensor(np.ones(y.shape) if dy is None else dy, device=device, dtype=x.dtype))
    return y.numpy(), tensor.grad.numpy()


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_matches_the_naive_loops(case, count_include_pad, device):
    shape, *rest = case
    x = normal(*shape)
    rest += [count_include_pad]
    y = avg_pool2d(Tensor(x, device=device), *rest).numpy()
    np.testing.assert_allclose(y, avg_pool2d_reference(x, *rest), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
@pytest.mark.parametrize("face", ["textbook:0", "cpu:0"])
def test_both_faces_of_the_cpu_match_the_naive_loops(case, count_include_pad, face):
    shape, *rest = case
    rest += [count_include_pad]
    x, (h, w) = normal(*shape), shape[2:]
    expected = avg_pool2d_reference(x, *rest)
    dy = normal(*expected.shape, seed=1)
    y, dx = run(x, face, *rest, dy=dy)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)
    # The mean is linear: its derivative by a pixel is what it makes of an image that is 1 there and 0 elsewhere.
    derivatives = avg_pool2d_reference(np.eye(h * w).reshape(h * w, 1, h, w), *rest)[:, 0]
    expected_dx = np.einsum("ncij,pij->ncp", dy, derivatives).reshape(shape)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-13, atol=1e-13)
    single = run(x.astype("f"), face, *rest, dy=dy.astype("f"))
    assert [array.dtype for array in single] == ["float32", "float32"]
    np.testing.assert_allclose(single[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(single[1], expected_dx, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_of_every_element(case, count_include_pad, device):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: avg_pool2d(x, *rest, count_include_pad), [x])


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_gradient_of_larger_images(case, count_include_pad, device):
    shape, *rest = case
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: avg_pool2d(x, *rest, count_include_pad), [x], direction=True)


@pytest.mark.parametrize("shape", [(3, 32, 32, 32), (2, 64, 15, 15)], ids=str)
def test_gradient_at_cifar_shapes(shape, device):
    x = Tensor(normal(*shape), requires_grad=True, device=device)
    assert gradcheck(lambda x: avg_pool2d(x, 3, 2, 0, True, False), [x], direction=True)


def test_divisors(device):
    ones = Tensor(np.ones((1, 1, 4, 4)), device=device)

    def corner_to_corner(**kwargs):
        return np.diagonal(avg_pool2d(ones, 3, 2, **kwargs).numpy()[0, 0]).tolist()

    # Padded by one pixel: the corner window sees 4 pixels of 9 positions.
    assert corner_to_corner(padding=1) == [4 / 9, 1]
    assert corner_to_corner(padding=1, count_include_pad=False) == [1, 1]
    # The last window overhangs by one position: neither rule counts that.
    assert corner_to_corner(ceil_mode=True) == [1, 1]
    # Padding and overhang: the last window has one pixel and one position of padding each way.
    assert corner_to_corner(padding=1, ceil_mode=True) == [4 / 9, 1, 1 / 4]
    assert corner_to_corner(padding=1, ceil_mode=True, count_include_pad=False) == [1, 1, 1]


def test_stride_is_the_kernel_by_default(device):
    x = Tensor(normal(1, 1, 6, 6), device=device)
    assert avg_pool2d(x, (2, 3)).shape == (1, 1, 3, 2)


def test_nan_and_inf_stay_in_their_windows(device):
    x = np.zeros((1, 1, 4, 6))
    x[0, 0, 0, 0], x[0, 0, 3, 5] = np.nan, np.inf
    y, _ = run(x, device, 2, 2)
    np.testing.assert_array_equal(y[0, 0], [[np.nan, 0, 0], [0, 0, np.inf]])


def test_any_strides_and_the_memory_order_of_the_result(device):
    x, dy = normal(2, 5, 9, 9), normal(2, 5, 4, 4, seed=1)
    expected = run(x, device, 3, 2, dy=dy)
    views = [
        Tensor(x[:, ::-1, ::-1].copy(), device=device).data[:, ::-1, ::-1],
        Tensor(np.asfortranarray(x), device=device).data,
        Tensor(np.repeat(x, 2, 3), device=device).data[..., ::2],
    ]
    for view in views:
        tensor = Tensor(x, requires_grad=True, device=device)
        tensor.data = view
        y = avg_pool2d(tensor, 3, 2)
        y.T.backward(Tensor(dy.T.copy(), device=device))  # dy reaches the op as a view, its axes in another order
        np.testing.assert_array_equal(y.numpy(), expected[0])
        np.testing.assert_array_equal(tensor.grad.numpy(), expected[1])
        if y.device.kind != "textbook":  # channels-last memory on the CPU, (N, C, H, W) on a card
            assert (y.data.transpose(0, 2, 3, 1) if y.device.on_host else y.data).flags.c_contiguous


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile", [1, 450, 700, 10**9])  # elements: tiles of 1, 2 and 3 images of 210; all 7 at once
@pytest.mark.parametrize("stride", [1, 2, 3, 5, (8, 9)], ids=str)
def test_tiles_of_images_with_a_remainder(threads, tile, stride, device, monkeypatch):
    monkeypatch.setattr("minigrad.ops._pooling.TILE", tile)
    minigrad.set_num_threads(threads, device)
    x = normal(7, 5, 6, 7)
    shape = avg_pool2d(Tensor(x), 3, stride, 1).shape
    dy = normal(*shape, seed=1)
    y, dx = run(x, device, 3, stride, 1, dy=dy)
    for image in range(7):
        one = slice(image, image + 1)
        one_y, one_dx = run(x[one], device, 3, stride, 1, dy=dy[one])
        np.testing.assert_array_equal(y[one], one_y)
        np.testing.assert_array_equal(dx[one], one_dx)
    pairs = stride if isinstance(stride, tuple) else (stride, stride)
    expected = avg_pool2d_reference(x, (3, 3), pairs, ((1, 1), (1, 1)), False, True)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)
    # dx is linear in dy, and the mean's adjoint: <y(z), dy> = <z, dx> for any z.
    z = normal(*x.shape, seed=2)
    y_of_z = avg_pool2d_reference(z, (3, 3), pairs, ((1, 1), (1, 1)), False, True)
    np.testing.assert_allclose((y_of_z * dy).sum(), (z * dx).sum(), rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 0, 5, 5), (2, 3, 5, 5)])
def test_dtypes_and_empty_batches(shape, dtype, device):
    y, dx = run(np.zeros(shape, dtype), device, 3, 2)
    assert y.shape == (*shape[:2], 2, 2) and dx.shape == shape and y.dtype == dx.dtype == dtype


def test_same_bits_on_any_number_of_threads(device):
    x, dy = normal(5, 16, 15, 15).astype("f"), normal(5, 16, 7, 7, seed=1).astype("f")
    results = []
    for threads in (1, 3):
        minigrad.set_num_threads(threads, device)
        results.append(run(x, device, 3, 2, dy=dy))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_stride_beyond_32_bits_leaves_one_window(device):
    x = normal(1, 2, 5, 4)
    y, dx = run(x, device, 3, 2**40)
    np.testing.assert_allclose(y, x[:, :, :3, :3].mean((2, 3), keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(dx[:, :, :3, :3], 1 / 9, rtol=1e-13)
    assert (dx[:, :, 3:] == 0).all() and (dx[..., 3:] == 0).all()


def test_elements_beyond_32_bits(device, monkeypatch):
    x, dy = normal(2, 2, 3, 5).astype("f"), normal(2, 2, 2, 6, seed=1).astype("f")

    def op(x):
        return avg_pool2d(x, 2, 1, (0, 1), False, False)

    y, dx = last_images_of_many(op, x, dy, device, monkeypatch)
    tensor = Tensor(x.astype("d"), requires_grad=True, device="cpu:0")
    expected = op(tensor)
    expected.backward(Tensor(dy.astype("d"), device="cpu:0"))
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- other implementations


@st.composite
def configurations(draw):
    """(shape, kernel, stride, padding, ceil_mode, count_include_pad) that PyTorch accepts too."""
    axes = []
    for _ in range(2):
        kernel = draw(st.integers(1, 5))
        padding = draw(st.integers(0, kernel // 2))
        size = draw(st.integers(max(1, kernel - 2 * padding), kernel + 7))
        axes.append((size, kernel, draw(st.integers(1, 4)), padding))
    sizes, kernel, stride, padding = zip(*axes)
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes)
    return shape, kernel, stride, padding, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=80)
@given(configurations(), st.integers(0, 1000))
def test_matches_pytorch(device, configuration, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    shape, *rest = configuration
    x = normal(*shape, seed=seed)
    theirs = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.avg_pool2d(theirs, *rest)
    dy = normal(*y.shape, seed=seed + 1)
    y.backward(torch.tensor(dy))
    ours, dx = run(x, device, *rest, dy=dy)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_every_small_window_as_pytorch(device, ceil_mode, count_include_pad):
    """Values, gradients and refusals along one axis of few pixels, with every window, stride and padding."""
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    for size, kernel, stride in itertools.product(range(1, 6), range(1, 5), range(1, 4)):
        x = normal(1, 1, size, 3)
        for padding in range(kernel // 2 + 1):
            rest = (kernel, 2), (stride, 2), (padding, 1), ceil_mode, count_include_pad
            theirs = torch.tensor(x, requires_grad=True)
            try:
                expected = torch.nn.functional.avg_pool2d(theirs, *rest)
            except RuntimeError:
                with pytest.raises(ShapeError, match="avg_pool2d: .*does not fit"):
                    avg_pool2d(Tensor(x, device=device), *rest)
                continue
            dy = normal(*expected.shape, seed=1)
            expected.backward(torch.tensor(dy))
            y, dx = run(x, device, *rest, dy=dy)
            np.testing.assert_allclose(y, expected.detach().numpy(), 1e-12, 1e-12, err_msg=f"{size}, {rest}")
            np.testing.assert_allclose(dx, theirs.grad.numpy(), 1e-12, 1e-12, err_msg=f"{size}, {rest}")


@pytest.mark.parametrize(
    "shape, kernel, stride, pads",
    [((1, 2, 2, 2), [3, 3], [2, 2], [0] * 4), ((1, 1, 1, 3), [4, 5], [3, 2], [0, 0, 1, 1])],
)
def test_a_window_larger_than_the_image_as_onnxruntime(device, shape, kernel, stride, pads):
    x = normal(*shape).astype(np.float32)
    expected = onnx_run("AveragePool", x, kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=1)
    padding = tuple(zip(pads[:2], pads[2:]))
    y = avg_pool2d(Tensor(x, device=device), tuple(kernel), tuple(stride), padding, True, False).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(y, x.mean((2, 3), keepdims=True), rtol=1e-6, atol=1e-7)


@settings(max_examples=60)
@given(configurations(), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1000))
def test_matches_onnxruntime(device, configuration, more_bottom, more_right, seed):
    shape, kernel, stride, (ph, pw), ceil_mode, count_include_pad = configuration
    bottom, right = min(ph + more_bottom, kernel[0] - 1), min(pw + more_right, kernel[1] - 1)  # asymmetric
    x = normal(*shape, seed=seed).astype(np.float32)
    # onnxruntime 1.23 leaves trailing padding out of the divisor all the same; 1.31 counts it, as does PyTorch.
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an oracle where installed")
    count_include_pad = count_include_pad and tuple(map(int, runtime.__version__.split(".")[:2])) >= (1, 31)
    expected = onnx_run(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=stride,
        pads=[ph, pw, bottom, right],
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad),
    )
    padding = (ph, bottom), (pw, right)
    y = avg_pool2d(Tensor(x, device=device), kernel, stride, padding, ceil_mode, count_include_pad)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (ShapeError, "does not fit the padded input 4x4", [5]),
        (ShapeError, "2 of 6 windows along the height would see padding only", [1, 1, (1, 0)]),
        (ArgumentError, "kernel_size must be an integer >= 1, got 0", [0]),
        (ArgumentError, "stride must be an integer >= 1, got 0", [2, 0]),
        (ArgumentError, "padding must be an integer >= 0, got -1", [2, 1, -1]),
        (ArgumentError, r"kernel_size must be an int or \(vertical, horizontal\)", [(2, 2, 2)]),
    ],
)
def test_refused_settings(error, match, args, device):
    with pytest.raises(error, match="avg_pool2d: .*" + match):
        avg_pool2d(Tensor(np.zeros((1, 1, 4, 4)), device=device), *args)


def test_refused_inputs(device):
    with pytest.raises(ShapeError, match=r"avg_pool2d: x must have 4 axes \(N, C, H, W\), it has 3"):
        avg_pool2d(Tensor(np.zeros((1, 4, 4)), device=device), 2)
    with pytest.raises(DTypeError, match="avg_pool2d: .*int64"):
        avg_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64), device=device), 2)


@pytest.mark.parametrize("kernel", [(70, 72), (5040, 1), (1, 5040)])
def test_large_windows_are_summed_in_pieces(kernel, device):
    """2^24 + 1 is 2^24 in float32: one addition after the other would lose all the ones."""
    if not minigrad.device(device).on_host and kernel != (70, 72):
        pytest.skip("the kernels sum row by row")
    x = np.ones((1, 2, *kernel), np.float32)
    x[..., 0, 0] = 2.0**24
    for where in (device, "textbook:0"):
        y = avg_pool2d(Tensor(x, device=where), kernel)
        np.testing.assert_allclose(y.numpy().astype("float64") * 5040, 2.0**24 + 5039, rtol=0, atol=160)
    # The middle pixel is seen by windows at all places.
    h, w = kernel
    x = Tensor(np.ones((1, 1, 2 * h - 1, 2 * w - 1), np.float32), True, device)
    y = avg_pool2d(x, kernel, stride=1)
    dy = np.ones(y.shape, np.float32)
    dy[..., 0, 0] = 2.0**24
    y.backward(Tensor(dy * 5040, device=device))
    np.testing.assert_allclose(x.grad.numpy()[0, 0, h - 1, w - 1], 2.0**24 + 5039, rtol=0, atol=160)


@pytest.mark.parametrize("kernel", [(300, 2), (2, 300)])
def test_no_piece_of_a_long_window_is_lost(kernel, device):
    """To the last digit: one pixel in 300 is nothing beside the bound of the test above."""
    x = normal(1, 2, *(size + 1 for size in kernel))
    for where in (device, "textbook:0"):
        y, dx = run(x, where, kernel, 1, dy=np.ones((1, 2, 2, 2)))
        np.testing.assert_allclose(y[0, 0, 1, 0], x[0, 0, 1:, : kernel[1]].mean(), rtol=1e-12)
        np.testing.assert_allclose(y[0, 1, 0, 1], x[0, 1, : kernel[0], 1:].mean(), rtol=1e-12)
        down, across = ([1, *[2] * (size - 1), 1] for size in kernel)  # how many windows see a row, a column
        np.testing.assert_allclose(dx[0, 0], np.outer(down, across) / 600, rtol=1e-12)
