"""conv2d against naive loops, against PyTorch and onnxruntime, its gradients against central differences, and its faces
against each other.
"""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from oracles import onnx_run
from reference import conv2d_gradients_reference, conv2d_reference

import minigrad
import minigrad.functional as F
from minigrad import Tensor, from_numpy, gradcheck
from minigrad.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from minigrad.ops._tile_product import TILE_ROWS, cut
from minigrad.ops._windows import output_shape
from minigrad.ops.conv2d import Conv2d

# (x, weight, stride, padding, dilation, groups): strides, odd and asymmetric paddings, groups, dilations, kernels that
# leave rows unread, windows that overhang into padding only on one side.
SMALL = {
    "plain": ((2, 3, 6, 5), (4, 3, 3, 3), 1, 0, 1, 1),
    "stride": ((2, 2, 9, 8), (3, 2, 3, 2), (3, 2), 0, 1, 1),
    "padding": ((1, 2, 5, 5), (3, 2, 3, 3), 1, (2, 1), 1, 1),
    "overhang": ((2, 2, 6, 7), (2, 2, 4, 4), 2, ((0, 3), (1, 2)), 1, 1),
    "padding beyond the kernel": ((1, 1, 3, 3), (2, 1, 2, 2), 1, ((3, 0), (0, 4)), 1, 1),
    "padding below only": ((3, 2, 5, 4), (2, 2, 2, 2), 1, ((0, 2), (0, 0)), 1, 1),
    "dilation": ((2, 2, 8, 9), (2, 2, 3, 2), 1, 1, (2, 3), 1),
    "dilation and stride": ((1, 2, 9, 9), (3, 2, 2, 3), 2, ((1, 0), (2, 1)), 2, 1),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), 1, 1, 1, 3),
    "depthwise": ((2, 4, 5, 6), (8, 1, 3, 3), 2, 1, 1, 4),
    "one pixel": ((3, 4, 1, 1), (5, 4, 1, 1), 1, 0, 1, 1),
    "one tap, every second row": ((2, 3, 7, 4), (4, 3, 1, 1), (2, 1), 0, 1, 1),
    "one tap, every second column": ((2, 3, 4, 7), (4, 3, 1, 1), (1, 2), 0, 1, 1),
    "whole image": ((2, 3, 4, 5), (2, 3, 4, 5), 1, 0, 1, 1),
}
cases = pytest.mark.parametrize("case", SMALL.values(), ids=SMALL.keys())


def tensors(case, device, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x, w, *_ = case
    arrays = rng.standard_normal(x), rng.standard_normal(w), rng.standard_normal(w[0])
    return [Tensor(a, requires_grad=True, device=device, dtype=dtype) for a in arrays]


@cases
def test_forward_is_the_formula(case, device):
    x, w, b = tensors(case, device)
    y = F.conv2d(x, w, b, *case[2:])
    np.testing.assert_allclose(y.numpy(), conv2d_reference(x.numpy(), w.numpy(), b.numpy(), *case[2:]), atol=1e-12)


@cases
def test_all_faces_are_the_formula(case):
    """The textbook's and the fast one, forward and backward, against naive loops."""
    x, w, b = (t.numpy() for t in tensors(case, "cpu:0"))
    expected = conv2d_reference(x, w, b, *case[2:])
    dy = np.random.default_rng([0, 1]).standard_normal(expected.shape)
    for face in ("textbook:0", "cpu:0"):
        y, *grads = results(case, face, "float64")
        np.testing.assert_allclose(y, expected, atol=1e-12)
        for mine, naive in zip(grads, conv2d_gradients_reference(x, w, dy, *case[2:])):
            np.testing.assert_allclose(mine, naive, atol=1e-12)


@cases
def test_the_textbook_without_bias_and_of_one_gradient_only(case):
    x, w, b = tensors(case, "textbook:0")
    y = F.conv2d(x, w, b, *case[2:])
    bare = F.conv2d(x, w.detach(), None, *case[2:])
    np.testing.assert_allclose(bare.numpy() + b.numpy()[:, None, None], y.numpy(), atol=1e-12)
    # Along a direction: every element is compared with naive loops above.
    gradcheck(lambda x: F.conv2d(x, w.detach(), None, *case[2:]), [x], direction=True)
    gradcheck(lambda w, b: F.conv2d(x.detach(), w, b, *case[2:]), [w, b], direction=True)


@cases
def test_backward_is_a_convolution_with_the_kernel_turned_round(case, device):
    """dx: of dy, with s - 1 zeros between its pixels, by the kernel turned by 180 degrees, all overlaps included."""
    _, w, _ = (t.numpy() for t in tensors(case, device))
    y, dx, _, _ = results(case, device, "float64")
    s, p, d, groups = in_full(case)
    dy = np.random.default_rng([0, 1]).standard_normal(y.shape)
    gaps = np.zeros((*dy.shape[:2], s[0] * (dy.shape[2] - 1) + 1, s[1] * (dy.shape[3] - 1) + 1))
    gaps[:, :, :: s[0], :: s[1]] = dy
    turned = np.concatenate([wg[:, :, ::-1, ::-1].swapaxes(0, 1) for wg in np.split(w, groups)])
    border = d[0] * (w.shape[2] - 1), d[1] * (w.shape[3] - 1)
    full = F.conv2d(Tensor(gaps, device=device), Tensor(turned, device=device), None, 1, border, d, groups).numpy()
    padded = np.zeros((*dx.shape[:2], dx.shape[2] + sum(p[0]), dx.shape[3] + sum(p[1])))
    padded[:, :, : full.shape[2], : full.shape[3]] = full  # what lies beyond, no window has seen
    (top, _), (left, _) = p
    np.testing.assert_allclose(dx, padded[:, :, top : top + dx.shape[2], left : left + dx.shape[3]], atol=1e-12)


@cases
def test_the_gradient_of_the_kernel_is_a_convolution_with_dy(case, device):
    """dw: of x by dy, images in the place of channels, stride and dilation changed over."""
    x, w, _ = (t.numpy() for t in tensors(case, device))
    y, _, dw, _ = results(case, device, "float64")
    s, p, d, groups = in_full(case)
    dy = np.random.default_rng([0, 1]).standard_normal(y.shape)
    for g, (xg, dyg) in enumerate(zip(np.split(x, groups, 1), np.split(dy, groups, 1))):
        xg, dyg = (Tensor(a.swapaxes(0, 1), device=device) for a in (xg, dyg))
        whole = F.conv2d(xg, dyg, None, stride=d, padding=p, dilation=s).numpy().swapaxes(0, 1)
        np.testing.assert_allclose(np.split(dw, groups)[g], whole[:, :, : w.shape[2], : w.shape[3]], atol=1e-12)


@cases
def test_every_gradient_element(case, device):
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, *case[2:]), tensors(case, device))


@cases
def test_gradient_without_bias_and_of_one_input_only(case, device):
    x, w, _ = tensors(case, device)
    gradcheck(lambda x: F.conv2d(x, w.detach(), None, *case[2:]), [x], direction=True)
    gradcheck(lambda w: F.conv2d(x.detach(), w, None, *case[2:]), [w], direction=True)


@pytest.mark.parametrize(
    "case",
    [  # AlexNet's conv1 and conv2 (several row tiles with a rest), conv4: groups of many channels
        ((2, 3, 224, 224), (96, 3, 11, 11), 4, ((0, 3), (0, 3)), 1, 1),
        ((3, 96, 27, 27), (256, 48, 5, 5), 1, 2, 1, 2),
        ((3, 384, 13, 13), (384, 192, 3, 3), 1, 1, 1, 2),
    ],
    ids=["conv1", "conv2", "conv4"],
)
def test_gradient_along_a_direction_at_real_sizes(case, device):
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, *case[2:]), tensors(case, device), direction=True, eps=1e-5)


def test_threads_do_not_change_the_result(device):
    case = ((5, 6, 13, 11), (8, 3, 3, 3), 2, 1, 1, 2)

    def run(threads):
        minigrad.set_num_threads(threads, device)
        x, w, b = tensors(case, device)
        y = F.conv2d(x, w, b, *case[2:])
        y.backward(np.cos(np.arange(y.size)).reshape(y.shape))
        return [a.numpy() for a in (y, x.grad, w.grad, b.grad)]

    try:
        one, two, again = run(1), run(2), run(2)
    finally:
        minigrad.set_num_threads(None, device)
    for a, b, c in zip(one, two, again):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(b, c)


def test_any_memory_order_of_its_inputs(device):
    case = ((2, 4, 7, 6), (6, 2, 3, 3), 1, 1, 1, 2)
    x, w, b = (t.numpy() for t in tensors(case, device))
    expected = conv2d_reference(x, w, b, *case[2:])
    wide = np.zeros((2, 8, 7, 12))
    wide[:, ::2, :, ::2] = x
    orders = [
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.asfortranarray(x),
        wide[:, ::2, :, ::2],
        x[:, ::-1].copy()[:, ::-1],
    ]
    for same in orders:
        y = F.conv2d(
            minigrad.from_numpy(same).to(device), Tensor(w, device=device), Tensor(b, device=device), 1, 1, 1, 2
        )
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("below", [0, 1, 2])
def test_channels_last_images_with_padding_below_only(below, device):
    """Images that need no copy as long as no window sees beyond them."""
    x, w, b = tensors(SMALL["padding below only"], device)
    expected = conv2d_reference(x.numpy(), w.numpy(), b.numpy(), 1, ((0, below), (0, 0)))
    x = Tensor(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), device=device)
    np.testing.assert_allclose(F.conv2d(x, w, b, 1, ((0, below), (0, 0))).numpy(), expected, atol=1e-12)


def test_gradient_of_any_memory_order(device):
    """What comes back from the next op may be strided too: the same gradients."""
    x, w, b = tensors(((2, 3, 6, 5), (4, 3, 3, 3), 1, 0, 1, 1), device)
    dy = np.random.default_rng(1).standard_normal((2, 4, 4, 3))
    grads = []
    for order in (dy, np.asfortranarray(dy), np.repeat(dy, 2, axis=3)[..., ::2]):
        for t in (x, w, b):
            t.grad = None
        F.conv2d(x, w, b).backward(minigrad.from_numpy(order).to(device))
        grads.append([t.grad.numpy() for t in (x, w, b)])
    for other in grads[1:]:
        for a, c in zip(grads[0], other):
            np.testing.assert_allclose(a, c, atol=1e-12)


def test_empty_batch(device):
    x = Tensor(np.zeros((0, 3, 8, 8)), requires_grad=True, device=device)
    w = Tensor(np.ones((4, 3, 3, 3)), requires_grad=True, device=device)
    b = Tensor(np.ones(4), requires_grad=True, device=device)
    y = F.conv2d(x, w, b, padding=1)
    assert y.shape == (0, 4, 8, 8)
    y.backward(np.zeros(y.shape))
    assert x.grad.shape == x.shape
    np.testing.assert_array_equal(w.grad.numpy(), np.zeros(w.shape))
    np.testing.assert_array_equal(b.grad.numpy(), np.zeros(4))


def test_images_of_no_rows(device):
    """Nothing but padding: y is the bias, and no gradient reaches w."""
    x, w, b = tensors(((2, 3, 0, 4), (4, 3, 2, 2)), device)
    y = F.conv2d(x, w, b, padding=1)
    np.testing.assert_array_equal(y.numpy(), np.broadcast_to(b.numpy()[:, None, None], (2, 4, 1, 5)))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == x.shape
    np.testing.assert_array_equal(w.grad.numpy(), np.zeros(w.shape))
    np.testing.assert_array_equal(b.grad.numpy(), np.full(4, 10.0))


def test_nan_and_inf_reach_exactly_the_windows_that_see_them(device):
    x = np.zeros((1, 1, 5, 5), "f")
    x[0, 0, 0, 0], x[0, 0, 4, 4] = np.nan, np.inf
    y = F.conv2d(Tensor(x, device=device), Tensor(np.ones((1, 1, 2, 2), "f"), device=device)).numpy()[0, 0]
    assert np.isnan(y[0, 0]) and np.isposinf(y[3, 3])
    y = y.copy()
    y[0, 0] = y[3, 3] = 0
    np.testing.assert_array_equal(y, np.zeros((4, 4)))


def test_float32_stays_float32(device):
    x, w, b = tensors(SMALL["groups"], device, "float32")
    y = F.conv2d(x, w, b, 1, 1, 1, 3)
    y.backward(np.ones(y.shape, "f"))
    assert {t.dtype for t in (y, x.grad, w.grad, b.grad)} == {np.dtype("float32")}


shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 3), "groups": st.integers(1, 3), "cg": st.integers(1, 4), "og": st.integers(1, 4),
        "h": st.integers(1, 12), "w": st.integers(1, 12), "kh": st.integers(1, 5), "kw": st.integers(1, 5),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(*[st.integers(0, 4)] * 4), "bias": st.booleans(), "seed": st.integers(0, 99),
    }
)  # fmt: skip


def random_case(c):
    """Arrays and settings, or None where the kernel does not fit the padded image."""
    top, bottom, left, right = c["padding"]
    reach = [d * (k - 1) + 1 for d, k in zip(c["dilation"], (c["kh"], c["kw"]))]
    if reach[0] > c["h"] + top + bottom or reach[1] > c["w"] + left + right:
        return None
    rng = np.random.default_rng(c["seed"])
    x = rng.standard_normal((c["n"], c["cg"] * c["groups"], c["h"], c["w"]), dtype="f")
    w = rng.standard_normal((c["og"] * c["groups"], c["cg"], c["kh"], c["kw"]), dtype="f")
    b = rng.standard_normal(len(w), dtype="f") if c["bias"] else None
    return x, w, b, (c["stride"], ((top, bottom), (left, right)), c["dilation"], c["groups"])


@given(shapes)
@settings(max_examples=80)
def test_against_pytorch(c):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    if (case := random_case(c)) is None:
        return
    x, w, b, (stride, ((top, bottom), (left, right)), dilation, groups) = case
    ours = [Tensor(a, requires_grad=True) for a in (x, w, b) if a is not None]
    y = F.conv2d(*ours, *([] if b is not None else [None]), stride, ((top, bottom), (left, right)), dilation, groups)
    theirs = [torch.tensor(t.numpy().copy(), requires_grad=True) for t in ours]
    padded = torch.nn.functional.pad(theirs[0], (left, right, top, bottom))
    z = torch.nn.functional.conv2d(padded, *theirs[1:], stride=stride, dilation=dilation, groups=groups)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-4, atol=1e-4)
    dy = np.random.default_rng(1).standard_normal(y.shape, dtype="f")
    y.backward(dy)
    z.backward(torch.tensor(dy))
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-3)


@given(shapes)
@settings(max_examples=60)
def test_against_onnxruntime(c):
    if (case := random_case(c)) is None:
        return
    x, w, b, (stride, ((top, bottom), (left, right)), dilation, groups) = case
    inputs = (x, w) if b is None else (x, w, b)
    pads = [top, left, bottom, right]
    expected = onnx_run("Conv", *inputs, strides=stride, dilations=dilation, group=groups, pads=pads)
    y = F.conv2d(
        Tensor(x), Tensor(w), None if b is None else Tensor(b), stride, ((top, bottom), (left, right)), dilation, groups
    )
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-4)


X, W = np.zeros((8, 4, 32, 32), "f"), np.zeros((16, 4, 5, 5), "f")
REFUSED = {
    "rank of x": (
        lambda: F.conv2d(Tensor(X[0]), Tensor(W)),
        ShapeError,
        r"x must have 4 axes.*it has 3: \(4, 32, 32\)",
    ),
    "rank of weight": (lambda: F.conv2d(Tensor(X), Tensor(W[0])), ShapeError, "weight must have 4 axes"),
    "channels": (
        lambda: F.conv2d(Tensor(X), Tensor(W[:, :3])),
        ShapeError,
        r"weight expects 3 input channels \(groups=1\), x has 4: x \(8, 4, 32, 32\), weight \(16, 3, 5, 5\)",
    ),
    "groups": (
        lambda: F.conv2d(Tensor(X), Tensor(W[:15, :2]), groups=2),
        ShapeError,
        "multiple of groups=2, it has 15",
    ),
    "no kernels": (lambda: F.conv2d(Tensor(X), Tensor(W[:0])), ShapeError, "must have kernels"),
    "bias": (lambda: F.conv2d(Tensor(X), Tensor(W), Tensor(X[0, 0, 0])), ShapeError, r"bias must have shape \(16,\)"),
    "window": (
        lambda: F.conv2d(Tensor(X[:, :, :4]), Tensor(W)),
        ShapeError,
        "window 5x5.*does not fit.*4x32.*: use a smaller kernel or more padding",
    ),
    "dilated window": (
        lambda: F.conv2d(Tensor(X), Tensor(W), dilation=8),
        ShapeError,
        "window 33x33.*does not fit.*use a smaller kernel, less dilation or more padding",
    ),
    "stride 0": (
        lambda: F.conv2d(Tensor(X), Tensor(W), stride=0),
        ArgumentError,
        "stride must be an integer >= 1, got 0",
    ),
    "stride 1.5": (lambda: F.conv2d(Tensor(X), Tensor(W), stride=1.5), ArgumentError, "stride must be an integer"),
    "padding": (
        lambda: F.conv2d(Tensor(X), Tensor(W), padding=(0, -1)),
        ArgumentError,
        "padding must be an integer >= 0",
    ),
    "padding form": (
        lambda: F.conv2d(Tensor(X), Tensor(W), padding=((1, 2), 3)),
        ArgumentError,
        "padding must be an int",
    ),
    "integers": (lambda: F.conv2d(Tensor(X.astype(int)), Tensor(W)), DTypeError, "x int64, weight float32"),
    "mixed precision": (lambda: F.conv2d(Tensor(X), Tensor(W.astype(float))), DTypeError, "all float32 or all float64"),
    "an array": (lambda: F.conv2d(X, Tensor(W)), DTypeError, "x must be a Tensor, got ndarray"),
    "devices": (
        lambda: F.conv2d(Tensor(X, device="cpu:0"), Tensor(W, device="cpu:1")),
        DeviceError,
        "cpu:0, cpu:1.*one device",
    ),
}


@pytest.mark.parametrize("call, error, message", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- layouts and threads


def in_full(case):
    """Stride, padding, dilation and groups of a case, as Conv2d has them."""
    _, _, stride, padding, dilation, groups = case
    p = padding if np.ndim(padding) == 2 else tuple((a, a) for a in pair_of(padding))
    return pair_of(stride), p, pair_of(dilation), groups


def pair_of(number):
    return tuple(int(a) for a in np.broadcast_to(number, 2))


def node(case, needs=(True, True, True)):
    """The Conv2d of a case, as the public function makes it."""
    s, p, d, groups = in_full(case)
    op = Conv2d(s, p, d, groups, output_shape("conv2d", case[0], case[1][2:], s, p, d))
    op.needs = needs
    return op


@pytest.mark.cpu_only("threads share the images")
def test_a_single_image_is_not_given_to_split(device, monkeypatch):
    """Which would keep BLAS at one thread."""
    monkeypatch.setattr("minigrad.ops._conv2d_fast.split", lambda *_, **__: pytest.fail("split was called"))
    x, w, b = tensors(SMALL["padding"], device)
    F.conv2d(x, w, b, 1, 1).backward(np.ones((1, 3, 5, 5)))


@pytest.mark.cpu_only("threads share the images")
def test_a_small_convolution_stays_in_its_thread(device, monkeypatch):
    def one_piece(where, n, work, at_least):
        assert n // at_least < 2
        return [work(0, n)]

    monkeypatch.setattr("minigrad.ops._conv2d_fast.split", one_piece)
    x, w, b = tensors(SMALL["plain"], device)
    F.conv2d(x, w, b).sum().backward()


@pytest.mark.parametrize("repeated", [False, True])
def test_one_image_and_a_channel_to_each_group(repeated, device):
    """NumPy calls such images contiguous whatever the step from channel to channel, which none of them takes."""
    rng = np.random.default_rng(0)
    values, w = rng.standard_normal((1, 4, 6, 6)), rng.standard_normal((4, 1, 3, 3))
    if repeated:
        values = np.broadcast_to(values[:, :1], values.shape)
    x = from_numpy(values) if repeated and minigrad.device(device).on_host else Tensor(values, device=device)
    y = F.conv2d(x, Tensor(w, device=device), stride=2, groups=4)
    np.testing.assert_allclose(y.numpy(), conv2d_reference(values, w, stride=2, groups=4), atol=1e-12)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_the_gradient_that_is_wanted(wanted, device):
    case = SMALL["groups"]
    x, w, b = tensors(case, device)
    ones = np.ones((2, 9, 5, 5))
    F.conv2d(x, w, b, *case[2:]).backward(ones)
    alone = tensors(case, device)
    for i, t in enumerate(alone):
        t.requires_grad = i == wanted
    F.conv2d(*alone, *case[2:]).backward(ones)
    assert [t.grad is not None for t in alone] == [i == wanted for i in range(3)]
    np.testing.assert_array_equal(alone[wanted].grad.numpy(), (x, w, b)[wanted].grad.numpy())


def test_what_is_not_wanted_is_not_computed(device):
    each = (True, False, False), (False, True, False), (False, False, True), (False, True)
    for where, wanted in product((device, "textbook:0"), each):
        node = F.conv2d(*tensors(SMALL["plain"], where, "float32")[: len(wanted)]).node
        node.needs = wanted
        grads = node.device.backward(node, Tensor(np.ones((2, 4, 4, 3), "f"), device=where).data)
        assert tuple(grad is not None for grad in grads) == wanted


@pytest.mark.cpu_only("np.setbufsize")
def test_numpy_keeps_its_buffer_size(device):
    before = np.getbufsize()
    x, w, b = tensors(SMALL["padding"], device)
    F.conv2d(x, w, b, 1, 1).sum().backward()
    assert np.getbufsize() == before


# ---------------------------------------------------------------- tiles of the CUDA kernels

# More than one tile (of 64 rows, 128 columns, sums by 16) along every dimension of all three products, and a remainder;
# then few channels, in groups; then strides: phases of the input gradient, of unequal sizes.
LARGE = {
    "many channels": ((3, 70, 9, 7), (67, 70, 3, 2), 1, ((1, 0), (0, 1)), 1, 1),
    "few channels": ((5, 42, 9, 7), (46, 21, 2, 3), 1, ((0, 1), (2, 0)), 1, 2),
    "strides": ((2, 67, 23, 20), (66, 67, 3, 3), (2, 3), ((1, 2), (0, 1)), (1, 2), 1),
}
large = pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())


def results(case, device, dtype, seed=0):
    """y, dx, dw, db as NumPy arrays."""
    x, w, b = tensors(case, device, dtype, seed)
    y = F.conv2d(x, w, b, *case[2:])
    y.backward(np.random.default_rng([seed, 1]).standard_normal(y.shape).astype(dtype))
    return [a.numpy().copy() for a in (y, x.grad, w.grad, b.grad)]


def by_windows(x, w, b, stride, padding, dilation, groups):
    """conv2d as one sum over all windows of a group."""
    (sh, sw), (dh, dw) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    if np.ndim(padding) < 2:
        padding = [(p, p) for p in np.broadcast_to(padding, 2)]
    reach = dh * (w.shape[2] - 1) + 1, dw * (w.shape[3] - 1) + 1
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    windows = sliding_window_view(x, reach, (2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    parts = zip(np.split(windows, groups, 1), np.split(w, groups))
    return np.concatenate([np.einsum("ncijuv,ocuv->noij", *p, optimize=True) for p in parts], 1) + b[:, None, None]


def tiles_of(dtype):
    return TILE_ROWS[np.dtype(dtype).itemsize]


TIGHT = {"float32": 1e-5, "float64": 1e-13}


def cut_into(monkeypatch, tile, parts):
    """Let a card's products be cut into tiles of so many rows, and their sums into so many parts (None: as chosen)."""

    def cut_so(rows, columns, depth, products, tiles, itemsize):
        chosen = cut(rows, columns, depth, products, tiles, itemsize)
        step = 64 // itemsize
        part = chosen[2] if parts is None else max(1, math.ceil(depth / (parts * step))) * step
        return tile or chosen[0], max(1, math.ceil(depth / part)), part

    monkeypatch.setattr("minigrad.ops.conv2d.cut", cut_so)


@large
@pytest.mark.parametrize("parts", [1, None, 10**9])
def test_tiles_and_their_remainders(case, parts, device, monkeypatch):
    cut_into(monkeypatch, None, parts)
    x, w, b = tensors(case, device)
    np.testing.assert_allclose(
        F.conv2d(x, w, b, *case[2:]).numpy(), by_windows(x.numpy(), w.numpy(), b.numpy(), *case[2:]), atol=1e-11
    )
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, *case[2:]), [x, w, b], direction=True)
    for single, exact in zip(results(case, device, "float32"), results(case, "cpu:0", "float64")):
        np.testing.assert_allclose(single, exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("dtype, tile", [(dtype, n) for dtype in ("float32", "float64") for n in tiles_of(dtype)])
def test_every_height_of_a_tile(dtype, tile, parts, device, monkeypatch):
    """More than one tile and a remainder in rows, columns and depth of y, dx and dw; groups, strides, padding."""
    og, cg = tile + 3, tile // 2 + 5
    case = ((2, 2 * cg, 13, 12), (2 * og, cg, 2, 3), (1, 2), ((1, 0), (0, 2)), (2, 1), 2)
    exact = results(case, "cpu:0", "float64")
    cut_into(monkeypatch, tile, parts)
    for found, expected in zip(results(case, device, dtype), exact):
        np.testing.assert_allclose(found, expected, atol=TIGHT[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("tile", [tile for tile in tiles_of("float32") if tile > 32])  # 32: the cases of the kernel
def test_large_tiles_with_all_checks(tile, monkeypatch):
    """Such as small convolutions are not cut into by themselves."""
    from minigrad.cudasim import compiler
    from minigrad.cudasim.settings import options

    if compiler.available() is not None:
        pytest.skip(str(compiler.available()))
    case = ((2, 3, 8, 9), (tile + 3, 3, 3, 3), 1, ((1, 0), (0, 2)), 1, 1)
    cut_into(monkeypatch, tile, 2)
    with options(mode="check", order="random", seed=tile):
        found = results(case, "cudasim:0", "float32")
    for single, exact in zip(found, results(case, "cpu:0", "float64")):
        np.testing.assert_allclose(single, exact, atol=1e-5 * np.abs(exact).max())


@large
def test_gradients_are_the_same_bits_every_time(case, device):
    """Also when the blocks and threads of a card run in another order."""
    from minigrad.cudasim.settings import options

    first = results(case, device, "float32")
    with options(order="random", seed=1):
        for a, b in zip(first, results(case, device, "float32")):
            np.testing.assert_array_equal(a, b)


def test_nan_stays_in_its_rows_and_columns(device):
    """A tile that is filled up with what belongs to no result must not let it in."""
    case = ((3, 6, 7, 7), (10, 3, 3, 3), 2, ((1, 0), (1, 0)), 1, 2)
    x, w, b = (t.numpy().copy() for t in tensors(case, "cpu:0", "float32"))
    w[7], x[1] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        y = F.conv2d(*(Tensor(a, device=device) for a in (x, w, b)), *case[2:]).numpy()
    assert np.isnan(y[:, 7]).all()
    assert np.isfinite(np.delete(y, 7, 1)[[0, 2]]).all() and not np.isfinite(np.delete(y, 7, 1)[1]).any()
    x, w, b = tensors(case, device, "float32")
    y = F.conv2d(x, w, b, *case[2:])
    dy = np.ones(y.shape, "f")
    dy[2, 4] = np.nan
    y.backward(Tensor(dy, device=device))
    dx, dw, db = (t.grad.numpy() for t in (x, w, b))
    seen = np.zeros(dx.shape, bool)
    seen[2, :3, :6, :6] = True  # by the windows of the group's channels; the last row and column are in none
    np.testing.assert_array_equal(np.isnan(dx), seen)
    assert np.isfinite(dx[~seen]).all()
    assert np.isnan(dw[4]).all() and np.isfinite(np.delete(dw, 4, 0)).all()
    assert np.isnan(db[4]) and np.isfinite(np.delete(db, 4)).all()


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_every_small_setting(kernel, device):
    """All strides, dilations and paddings of one axis up to 4, 3 and 2, the other axis with other ones.

    y by the formula; then dx and dw from what they are, <dy, y> = <dx, x> = <dw, w>, as y is linear in either.
    """
    paddings = list(product(range(3), repeat=2))
    rng = np.random.default_rng(0)
    for number, (stride, dilation, padding) in enumerate(product((1, 2, 3, 4), (1, 2, 3), paddings)):
        other = 1 + number % 3, 1 + number % 2, paddings[-1 - number % len(paddings)]
        settings = (stride, other[0]), (padding, other[2]), (dilation, other[1]), 1
        x = Tensor(rng.standard_normal((2, 2, 7, 5)), requires_grad=True, device=device)
        w = Tensor(rng.standard_normal((3, 2, kernel, 1 + number % 3)), requires_grad=True, device=device)
        y = F.conv2d(x, w, None, *settings)
        np.testing.assert_allclose(y.numpy(), by_windows(x.numpy(), w.numpy(), np.zeros(3), *settings), atol=1e-12)
        dy = rng.standard_normal(y.shape)
        y.backward(Tensor(dy, device=device))
        for t in (x, w):
            np.testing.assert_allclose(np.vdot(t.grad.numpy(), t.numpy()), np.vdot(dy, y.numpy()), atol=1e-11)


ALEXNET = {
    "conv1": ((1, 3, 224, 224), (96, 3, 11, 11), 4, ((0, 3), (0, 3)), 1, 1),
    "conv2": ((1, 96, 27, 27), (256, 48, 5, 5), 1, 2, 1, 2),
    "conv3": ((1, 256, 13, 13), (384, 256, 3, 3), 1, 1, 1, 1),
    "conv4": ((1, 384, 13, 13), (384, 192, 3, 3), 1, 1, 1, 2),
    "conv5": ((1, 384, 13, 13), (256, 192, 3, 3), 1, 1, 1, 2),
}


@pytest.mark.parametrize("case", ALEXNET.values(), ids=ALEXNET.keys())
def test_single_precision_at_real_sizes(case, device):
    for single, exact in zip(results(case, device, "float32"), results(case, "cpu:0", "float64")):
        np.testing.assert_allclose(single, exact, atol=2e-5 * np.abs(exact).max())


@pytest.mark.parametrize(
    "n, c, o, size", [(33, 1, 4096, 128), (33, 4096, 1, 128), (2049, 1, 1, 1024)], ids=["y", "x", "pixels"]
)
def test_offsets_past_31_bits(n, c, o, size, device, monkeypatch):
    """n images, more than 2^31 numbers, zero but for the last image; only the last block of each launch is run."""
    if not device.startswith("cudasim"):
        pytest.skip("the emulator's memory takes no room until it is written to, and it runs single blocks")
    from minigrad.cudasim.settings import options

    where, launch = minigrad.device(device), minigrad.device(device).runtime.launch
    rng = np.random.default_rng(0)
    x1, dy1 = (rng.standard_normal((channels, size, size), dtype="f") for channels in (c, o))
    w, b = rng.standard_normal((o, c, 1, 1), dtype="f"), rng.standard_normal(o, dtype="f")

    def last_image(values):
        array = where.empty((n, *values.shape), np.float32)
        array.host[-1] = values
        return array

    def launch_last_block(function, parameters, grid, *rest):
        with options(blocks=range(int(np.prod(grid)) - 1, int(np.prod(grid)))):
            launch(function, parameters, grid, *rest)

    seen = slice(None)
    if c * o == 1:  # dw is a sum of 2^31 terms: cut it into so many parts that the last is one row of the image
        seen, part = slice(-1, None), 32800
        parts = -(-n * size**2 // part)
        assert n * size**2 - (parts - 1) * part == size
        monkeypatch.setattr(
            "minigrad.ops.conv2d.cut", lambda r, c, depth, *_: (32, *((parts, part) if depth > 1 else (1, 16)))
        )
    try:
        with options(poison=False, mode="fast"):
            weight, bias, x, dy = Tensor(w, device=device), Tensor(b, device=device), last_image(x1), last_image(dy1)
            op = node((x.shape, w.shape, 1, 0, 1, 1))
            op.device = where
            monkeypatch.setattr(where.runtime, "launch", launch_last_block)
            y = where.forward(op, x, weight.data, bias.data)
            dx, dw, db = where.backward(op, dy)
    except OSError as error:  # of mmap
        pytest.skip(f"the system has no address space for {4 * n * max(c, o) * size**2 / 1e9:.0f} GB: {error}")
    assert max(x.size, y.size) > 2**31
    rows, pixels = slice(-32, None), slice(-128, None)  # the last tile
    w = w[:, :, 0, 0]
    np.testing.assert_allclose(y.host[-1, rows, -1, pixels], (w @ x1[:, -1] + b[:, None])[rows, pixels], atol=2e-3)
    np.testing.assert_allclose(dx.host[-1, rows, -1, pixels], (w.T @ dy1[:, -1])[rows, pixels], atol=2e-3)
    expected = np.einsum("oij,cij->oc", dy1[:, seen], x1[:, seen], optimize=True)
    np.testing.assert_allclose(dw.host[rows, rows, 0, 0], expected[rows, rows], atol=2e-3)
    last_block = 8 * 1024  # of db's sum: 8 warps, each with 32 numbers a lane
    np.testing.assert_allclose(db.host[-1], dy1[-1].reshape(-1)[-last_block:].sum(dtype="d"), atol=1e-3)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["channels first", "channels last"])
def test_the_gradient_of_the_bias_loses_no_small_terms(order, device):
    """2^27 + 4 is 2^27 in float32: one addition after the other would lose all the ones, even four at a time."""
    dy = np.ones((2, 3, 50, 50) if order[1] == 1 else (2, 50, 50, 3), np.float32).transpose(order)
    dy[0, :, 0, 0] = 2.0**27
    for where in (device, "textbook:0"):
        x, w, b = (Tensor(np.ones(shape, np.float32), True, where) for shape in [(2, 1, 50, 50), (3, 1, 1, 1), (3,)])
        F.conv2d(x, w, b).backward(Tensor(dy, device=where))
        np.testing.assert_allclose(b.grad.numpy(), 2.0**27 + 4999, rtol=0, atol=300)


@pytest.mark.parametrize("channels", [1, 3, 48])
def test_the_gradient_of_the_bias_keeps_a_card_busy_whatever_the_channels(channels, device, monkeypatch):
    """A block takes at most 8,192 numbers; one block per channel would leave most of a card with nothing to do."""
    if not device.startswith("cudasim"):
        pytest.skip("looks at what is launched")
    where, launch, grids = minigrad.device(device), minigrad.device(device).runtime.launch, []

    def launch_seen(function, parameters, grid, *rest):
        grids.append(int(np.prod(grid)))
        launch(function, parameters, grid, *rest)

    x, w = np.zeros((48 // channels, 1, 64, 64), np.float32), np.zeros((channels, 1, 1, 1), np.float32)
    dy = Tensor(np.random.default_rng(0).standard_normal((len(x), channels, 64, 64), dtype="f"), device=device)
    op = node((x.shape, w.shape, 1, 0, 1, 1), (False, False, True))
    op.device, op.x, op.w = where, Tensor(x, device=device).data, Tensor(w, device=device).data
    monkeypatch.setattr(where.runtime, "launch", launch_seen)
    db = op.backward_gpu(dy.data)[2]
    assert max(grids) >= dy.size / 8192 == 24
    np.testing.assert_allclose(where.runtime.to_host(db), dy.numpy().sum((0, 2, 3), dtype="d"), atol=1e-3)


def test_a_stride_beyond_the_image_and_a_dilation_of_one_tap_are_any_number(device):
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 5, 4)), requires_grad=True, device=device)
    w = Tensor(np.random.default_rng(1).standard_normal((2, 3, 3, 1)), requires_grad=True, device=device)
    results = []
    for stride, dilation in ((6, 1), ((2**40, 2**62), (1, 2**40))):
        x.grad = w.grad = None
        y = F.conv2d(x, w, None, stride, 1, dilation)
        y.backward(np.ones(y.shape))
        results.append((y.numpy(), x.grad.numpy(), w.grad.numpy()))
    expected = conv2d_reference(x.numpy(), w.numpy(), stride=6, padding=1)
    np.testing.assert_allclose(results[0][0], expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ArgumentError, match="padding must be an integer >= 0, and at most 2147483647, got 4294967296"):
        F.conv2d(x, w, None, 1, 2**32)
