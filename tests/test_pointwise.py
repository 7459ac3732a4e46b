"""exp, log, sqrt, tanh, sigmoid, relu: element-wise functions of one tensor."""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import DTypeError, KernelError, Tensor, gradcheck


def logistic(x):
    """In float64, from the two formulas of the definition, each on its safe side."""
    return np.array([1 / (1 + np.exp(-v)) if v >= 0 else np.exp(v) / (1 + np.exp(v)) for v in x.ravel()]).reshape(
        x.shape
    )


# name: (oracle, smallest and largest argument)
FUNCTIONS = {
    "exp": (np.exp, -3, 3),
    "log": (np.log, 0.3, 4),
    "sqrt": (np.sqrt, 0.3, 4),
    "tanh": (np.tanh, -3, 3),
    "sigmoid": (logistic, -6, 6),
    "relu": (lambda x: np.where(x > 0, x, 0), -3, 3),
}
every = pytest.mark.parametrize("name", FUNCTIONS)


def argument(name, shape, device, dtype="float64"):
    _, low, high = FUNCTIONS[name]
    values = np.random.default_rng(0).uniform(low, high, shape)
    values = np.where(np.abs(values) < 1e-3, 0.5, values)  # away from the kink of relu
    return Tensor(values, True, device, dtype)


@every
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 4), (2, 3, 4, 5), (3, 7, 37)])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-6), ("float64", 1e-14)])
def test_values(name, shape, dtype, rtol, device):
    x = argument(name, shape, device, dtype)
    y = getattr(F, name)(x)
    assert y.dtype == dtype and y.shape == shape
    np.testing.assert_allclose(y.numpy(), FUNCTIONS[name][0](x.numpy().astype("float64")), rtol=rtol, atol=1e-7)
    np.testing.assert_array_equal(getattr(x, name)().numpy(), y.numpy())
    y.backward(np.ones(shape, dtype))
    assert x.grad.dtype == dtype and x.grad.shape == shape


@every
def test_gradients(name, device):
    assert gradcheck(getattr(F, name), [argument(name, (3, 4), device)])
    assert gradcheck(getattr(F, name), [argument(name, (), device)])
    assert gradcheck(getattr(F, name), [argument(name, (64, 96, 27), device)], direction=True)


@every
def test_any_memory_order(name, device):
    x = argument(name, (6, 8), device)
    f = getattr(F, name)
    for view in (lambda x: x[::-1, ::2], lambda x: x.T, lambda x: x[1::3]):
        np.testing.assert_allclose(f(view(x)).numpy(), view(f(x)).numpy(), rtol=1e-14)
        assert gradcheck(lambda x, view=view: f(view(x)), [x])
    assert gradcheck(lambda x: f(x).T, [x])  # here dy is the view


@every
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-14)])
def test_the_textbooks_face_and_the_fast_one(name, dtype, rtol):
    """Both against the derivative as another formula; 300 kB, so that the fast face takes its memory from the pool."""
    slope = {
        "exp": lambda x: 1 / np.exp(-x),
        "log": lambda x: 1 / x,
        "sqrt": lambda x: 0.5 * x**-0.5,
        "tanh": lambda x: np.cosh(x) ** -2,
        "sigmoid": lambda x: (np.exp(x / 2) + np.exp(-x / 2)) ** -2,
        "relu": lambda x: np.where(x > 0, 1, 0),
    }[name]
    dy = np.random.default_rng(1).standard_normal((7, 90, 61)).astype(dtype)
    values = argument(name, (61, 7, 90), "cpu:0", dtype).numpy().transpose(1, 2, 0)  # Tensor keeps the order in memory
    wide = values.astype("float64")
    for where in ("textbook:0", "cpu:0"):
        x = Tensor(values, True, where)
        y = getattr(F, name)(x)
        y.backward(dy)
        assert y.dtype == x.grad.dtype == dtype and str(y.device) == where
        np.testing.assert_allclose(y.numpy(), FUNCTIONS[name][0](wide), rtol=rtol)
        np.testing.assert_allclose(x.grad.numpy(), dy * slope(wide), rtol=rtol, atol=rtol / 10)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [7, 1032, 2051])
def test_memory_that_begins_anywhere_gives_the_same_bits(name, n, dtype, device):
    """A card takes 16 bytes at a time where it can: at a multiple of 16, and not for what is left over at the end."""
    values = argument(name, (n + 3,), device, dtype).detach()
    dy = Tensor(np.random.default_rng(1).standard_normal(n + 3), device=device, dtype=dtype)
    results = []
    for begin in range(4):
        x = values[begin : begin + n].detach()
        x.requires_grad_()
        y = getattr(F, name)(x)
        y.backward(dy[begin : begin + n])
        all_have = slice(3 - begin, n - begin)
        results.append((y.numpy()[all_have], x.grad.numpy()[all_have]))
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


@every
def test_fewer_threads_than_elements_are_reported(name, device):
    """A thread has two doubles: what too few of them leave out, here 9 of 201, is found in check mode."""
    if not device.startswith("cudasim"):
        pytest.skip("only the emulator looks for elements that were left out")
    from minigrad.cudasim.settings import options

    where, (x, y, dy) = minigrad.device(device), (argument(name, (3, 67), device).data for _ in range(3))
    file = name if name in ("tanh", "sigmoid", "relu") else "pointwise"
    for kernel, inputs in ((f"{name}_forward", (x,)), (f"{name}_backward", (dy, y))):
        with options(mode="check"), pytest.raises(KernelError, match="72 of the 1608 bytes of .* were left unwritten"):
            out = where.empty(x.shape, x.dtype)
            where.launch(file, kernel, 3, 32, *inputs, out, x.size, REAL=x.dtype)
        with options(mode="check"):
            where.launch(file, kernel, 4, 32, *inputs, out, x.size, REAL=x.dtype)


@every
def test_refused(name):
    with pytest.raises(DTypeError, match=f"{name}: expects floating-point input, got x int64"):
        getattr(F, name)(Tensor([1, 2]))
    with pytest.raises(DTypeError, match=f"{name}: x must be a Tensor, got float"):
        getattr(F, name)(1.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "low"), [("sigmoid", 0.0), ("tanh", -1.0)])
def test_far_out_nothing_overflows(name, low, dtype, device):
    x = Tensor([-1e4, -100, 100, 1e4, np.inf, -np.inf], True, device, dtype)
    y = getattr(F, name)(x)
    np.testing.assert_allclose(y.numpy(), [low, low, 1, 1, 1, low], atol=1e-30)
    y.backward(np.ones(6))
    np.testing.assert_allclose(x.grad.numpy(), np.zeros(6), atol=1e-30)


def test_sigmoid_of_large_negative_numbers_keeps_its_digits(device):
    x = Tensor([-50.0, -80.0], True, device)
    y = F.sigmoid(x)
    np.testing.assert_allclose(y.numpy(), np.exp([-50.0, -80.0]), rtol=1e-5)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([-50.0, -80.0]), rtol=1e-5)


@every
def test_nan_stays_nan(name, device):
    x = Tensor([np.nan, 1.0], device=device)
    assert np.isnan(getattr(F, name)(x).numpy()).tolist() == [True, False]


def test_outside_their_range_they_are_numpys(device):
    x = Tensor([0.0, -1.0, np.inf], True, device)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(F.log(x).numpy(), [-np.inf, np.nan, np.inf])
        root = F.sqrt(x)
        np.testing.assert_array_equal(root.numpy(), [0, np.nan, np.inf])
        root.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [np.inf, np.nan, 0])
        np.testing.assert_array_equal(F.exp(Tensor([1e4, -1e4])).numpy(), [np.inf, 0])


def test_relu_at_zero_and_infinity(device):
    x = Tensor([0.0, -0.0, np.inf, -np.inf, 1e-30], True, device)
    y = F.relu(x)
    np.testing.assert_array_equal(y.numpy(), np.float32([0, 0, np.inf, 0, 1e-30]))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 1, 0, 1])


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "relu"])
def test_against_pytorch(name, device):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    x = argument(name, (5, 7), device)
    theirs = torch.tensor(x.numpy().copy(), requires_grad=True)
    r = np.random.default_rng(1).standard_normal((5, 7))
    getattr(torch, name)(theirs).backward(torch.tensor(r))
    getattr(F, name)(x).backward(r)
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)
