"""conv_transpose2d: the naive gradient of a convolution, PyTorch, onnxruntime, differences; and its layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import onnx_run
from reference import conv2d_gradients_reference, conv2d_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor, gradcheck, nn

# (x, weight, stride, padding, output_padding, groups, dilation)
CASES = {
    "plain": ((2, 3, 4, 5), (3, 2, 3, 2), 1, 0, 0, 1, 1),
    "stride": ((2, 2, 3, 4), (2, 3, 3, 3), (2, 3), 0, 0, 1, 1),
    "stride beyond the kernel": ((1, 2, 3, 2), (2, 2, 2, 1), 3, 0, (2, 1), 1, 1),
    "padding": ((1, 2, 4, 4), (2, 3, 3, 4), 2, ((1, 0), (2, 1)), (1, 0), 1, 1),
    "dilation": ((2, 2, 3, 3), (2, 2, 3, 2), 1, 1, (0, 1), 1, (2, 3)),
    "dilation and stride": ((1, 2, 4, 3), (2, 2, 2, 3), 2, (1, 0), 1, 1, 3),
    "groups": ((2, 6, 3, 3), (6, 2, 3, 3), 2, 1, 1, 3, 1),
    "depthwise": ((2, 4, 3, 2), (4, 1, 2, 2), 2, 0, 0, 4, 1),
    "one pixel": ((3, 2, 1, 1), (2, 4, 3, 2), 5, 0, 0, 1, 1),
    "one tap, dilated": ((2, 3, 2, 3), (3, 2, 1, 1), 1, 0, (1, 2), 1, (2, 3)),
    "one tap": ((2, 3, 3, 4), (3, 2, 1, 1), (2, 1), 0, (1, 0), 1, 4),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def arrays(case, dtype=np.float64):
    random = np.random.default_rng(0)
    x, w, *_, groups, _ = case
    return [random.standard_normal(shape).astype(dtype) for shape in (x, w, (w[1] * groups,))]


@cases
def test_it_is_the_gradient_of_a_convolution(case, device):
    """Forward is conv2d's dx, and its gradients are conv2d's y and dw, all by naive loops."""
    (stride, padding, _, groups, dilation), (x, w, b) = case[2:], arrays(case)
    for where in {"textbook:0", "cpu:0", device}:
        of_x, of_w, of_b = (Tensor(a, True, where) for a in (x, w, b))
        y = F.conv_transpose2d(of_x, of_w, of_b, *case[2:])
        dy = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(dy)
        # The rows that output_padding adds may make room for one more window, of which x has none: its dy is 0.
        whole = conv2d_reference(np.zeros(y.shape), w, None, stride, padding, dilation, groups)
        whole[:, :, : x.shape[2], : x.shape[3]] = x
        dx, dw, _ = conv2d_gradients_reference(np.zeros(y.shape), w, whole, stride, padding, dilation, groups)
        np.testing.assert_allclose(y.numpy(), dx + b[:, None, None], atol=1e-12)
        back = conv2d_reference(dy, w, None, stride, padding, dilation, groups)
        np.testing.assert_allclose(of_x.grad.numpy(), back[:, :, : x.shape[2], : x.shape[3]], atol=1e-12)
        _, dw, _ = conv2d_gradients_reference(dy, w, whole, stride, padding, dilation, groups)
        np.testing.assert_allclose(of_w.grad.numpy(), dw, atol=1e-12)
        np.testing.assert_allclose(of_b.grad.numpy(), dy.sum((0, 2, 3)), atol=1e-12)


@cases
def test_gradients_of_every_element(case, device):
    inputs = [Tensor(a, True, device) for a in arrays(case)]
    assert gradcheck(lambda x, w, b: F.conv_transpose2d(x, w, b, *case[2:]), inputs)


def test_gradients_at_the_size_of_layers(device):
    random = np.random.default_rng(0)
    x, w = (Tensor(random.standard_normal(s), True, device) for s in ((4, 64, 14, 13), (64, 16, 4, 4)))
    assert gradcheck(lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, groups=2), [x, w], direction=True)


@settings(max_examples=60)
@given(data=st.data())
def test_against_pytorch(data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups, (h, w, kh, kw) = draw(1, 3), (draw(1, 5) for _ in range(4))
    s, d = (draw(1, 3), draw(1, 3)), (draw(1, 3), draw(1, 2))
    more = tuple(draw(0, max(pair) - 1) for pair in zip(s, d))
    sizes = [(n - 1) * s_ + d_ * (k - 1) + 1 + m for n, s_, d_, k, m in zip((h, w), s, d, (kh, kw), more)]
    p = tuple(draw(0, min(3, (size - 1) // 2)) for size in sizes)
    random = np.random.default_rng(0)
    shapes = (draw(1, 3), 2 * groups, h, w), (2 * groups, draw(1, 3), kh, kw)
    given_ = [random.standard_normal(shape) for shape in (*shapes, (shapes[1][1] * groups,))]
    ours = [Tensor(a, True) for a in given_]
    theirs = [torch.tensor(a, requires_grad=True) for a in given_]
    y, ty = (f(*inputs, s, p, more, groups, d) for f, inputs in
             ((F.conv_transpose2d, ours), (torch.nn.functional.conv_transpose2d, theirs)))  # fmt: skip
    dy = random.standard_normal(y.shape)
    y.backward(dy)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), atol=1e-11)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-11)


@pytest.mark.parametrize("case", [CASES[name] for name in ("plain", "padding", "groups")])
def test_against_onnxruntime(case, device):
    x, w, b = arrays(case, np.float32)
    (top, bottom), (left, right) = case[3] if isinstance(case[3], tuple) else ((case[3],) * 2,) * 2
    expected = onnx_run("ConvTranspose", x, w, b, strides=list(np.broadcast_to(case[2], 2)), group=case[5],
                        pads=[top, left, bottom, right], output_padding=list(np.broadcast_to(case[4], 2)))  # fmt: skip
    ours = F.conv_transpose2d(*(Tensor(a, device=device) for a in (x, w, b)), *case[2:])
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_only_the_gradients_that_are_wanted(device):
    case = CASES["padding"]
    full = [Tensor(a, True, device) for a in arrays(case)]
    F.conv_transpose2d(*full, *case[2:]).sum().backward()
    for wanted in range(3):
        some = [Tensor(a, i == wanted, device) for i, a in enumerate(arrays(case))]
        F.conv_transpose2d(*some, *case[2:]).sum().backward()
        np.testing.assert_allclose(some[wanted].grad.numpy(), full[wanted].grad.numpy(), rtol=1e-12, atol=1e-12)
        assert [t.grad is None for t in some] == [i != wanted for i in range(3)]


def test_any_memory_order_and_no_images(device):
    x, w, b = arrays(CASES["padding"])
    expected = F.conv_transpose2d(*(Tensor(a, device=device) for a in (x, w, b)), *CASES["padding"][2:]).numpy()
    turned = [Tensor(np.asfortranarray(a[::-1])[::-1], device=device) for a in (x, w, b)]
    y = F.conv_transpose2d(*turned, *CASES["padding"][2:])
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-12)
    none = Tensor(x[:0], True, device)
    y = F.conv_transpose2d(none, turned[1], None, 2)
    y.backward(np.zeros(y.shape))
    assert y.shape == (0, 3, 9, 10) and none.grad.shape == none.shape


def test_the_layer(device):
    random = np.random.default_rng(0)
    layer = nn.ConvTranspose2d(4, 6, (2, 3), (2, 1), ((1, 0), (0, 1)), (1, 0), 2, True, 1, device, "float64")
    minigrad.init.normal_(layer.bias)
    x = Tensor(random.standard_normal((2, 4, 5, 6)), device=device)
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, (2, 1), ((1, 0), (0, 1)), (1, 0), 2)
    np.testing.assert_array_equal(layer(x).numpy(), expected.numpy())
    assert str(layer) == (
        "ConvTranspose2d(4, 6, kernel_size=(2, 3), stride=(2, 1), padding=((1, 0), (0, 1)), output_padding=(1, 0), "
        "groups=2)  78 parameters"
    )
    assert str(nn.ConvTranspose2d(1, 2, 1, bias=False)).startswith(
        "ConvTranspose2d(1, 2, kernel_size=(1, 1), bias=False)"
    )
    large = nn.ConvTranspose2d(64, 64, 4, 2, 1, bias=False)  # keeps the variance, but for the square that a ReLU takes
    y = large(Tensor(random.standard_normal((2, 64, 9, 9)).astype("f"))).numpy()
    assert y[:, :, 2:-2, 2:-2].var() == pytest.approx(2, rel=0.15)
    with pytest.raises(ArgumentError, match="ConvTranspose2d: groups=3 must divide in_channels=4, out_channels=6"):
        nn.ConvTranspose2d(4, 6, 3, groups=3)


def test_refused_input(device):
    x, w, b = (Tensor(a, device=device) for a in arrays(CASES["plain"]))
    with pytest.raises(ShapeError, match=r"conv_transpose2d: x must have 4 axes \(N, C, H, W\), it has 3"):
        F.conv_transpose2d(x[0], w)
    with pytest.raises(ShapeError, match=r"x \(2, 2, 4, 5\), weight \(3, 2, 3, 2\): a weight's first axis must be"):
        F.conv_transpose2d(x[:, :2], w)
    with pytest.raises(ShapeError, match="in a multiple of groups=2"):
        F.conv_transpose2d(x, w, groups=2)
    with pytest.raises(ShapeError, match=r"bias must have shape \(2,\), a number per output channel, it has \(1,\)"):
        F.conv_transpose2d(x, w, b[:1])
    with pytest.raises(ShapeError, match=r"padding \(\(3, 3\), \(3, 3\)\) leaves 0x0 pixels"):
        F.conv_transpose2d(x, w, padding=3)
    with pytest.raises(
        ArgumentError, match=r"output_padding must be less than stride \(2, 2\) or dilation \(1, 1\), got"
    ):
        F.conv_transpose2d(x, w, stride=2, output_padding=(1, 2))
    with pytest.raises(DTypeError, match="all float32 or all float64"):
        F.conv_transpose2d(x, w.astype("float32"))
    with pytest.raises(DeviceError):
        F.conv_transpose2d(x, w.to("cpu:1"))
