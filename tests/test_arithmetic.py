"""add, subtract, multiply, divide, power, negative: values, gradients, broadcasting, element types."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, ShapeError, Tensor, gradcheck

OPS = {
    "add": (F.add, np.add),
    "subtract": (F.subtract, np.subtract),
    "multiply": (F.multiply, np.multiply),
    "divide": (F.divide, np.divide),
    "power": (F.power, np.power),
}
SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 1), (1, 4)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((2, 1, 3), (5, 1)),
    ((1,), (3,)),
    ((0, 3), (1, 3)),
    ((1, 1), (2, 1, 3)),
]


def positive(shape, device, seed=0, dtype="float64"):
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2, shape), True, device, dtype)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients(name, shapes, device):
    ours, numpys = OPS[name]
    a, b = positive(shapes[0], device), positive(shapes[1], device, seed=1)
    if name == "power" and not a.device.on_host:  # another pow than NumPy's
        np.testing.assert_allclose(ours(a, b).numpy(), numpys(a.numpy(), b.numpy()), rtol=1e-15)
    else:
        np.testing.assert_array_equal(ours(a, b).numpy(), numpys(a.numpy(), b.numpy()))
    if a.size and b.size:
        assert gradcheck(ours, [a, b])
        assert gradcheck(ours, [a, b.detach()])
        assert gradcheck(ours, [a.detach(), b])


SCALARS = {  # y, and what dy is multiplied by for da and for db
    "add": lambda a, b: (a + b, 1, 1),
    "subtract": lambda a, b: (a - b, 1, -1),
    "multiply": lambda a, b: (a * b, b, a),
    "divide": lambda a, b: (a / b, 1 / b, -a / b / b),
    "power": lambda a, b: (a**b, b * a**b / a, math.log(a) * a**b),
}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 1, 3), (5, 1)), ((), (2, 3)), ((37, 1, 7), (1, 3, 7))])
def test_number_by_number(name, shapes):
    """On textbook:0 and cpu:0 against a loop over the elements of the output."""
    a, b = (positive(shape, "cpu:0", seed).numpy() for seed, shape in enumerate(shapes))
    all_a, all_b = np.broadcast_arrays(a, b)
    da, db, y = np.zeros(a.shape), np.zeros(b.shape), np.zeros(all_a.shape)
    dy = np.random.default_rng(2).standard_normal(y.shape)
    for i in np.ndindex(y.shape):
        y[i], to_a, to_b = SCALARS[name](float(all_a[i]), float(all_b[i]))
        for grad, share in ((da, to_a), (db, to_b)):  # an element of size 1 along an axis has index 0 there
            home = tuple(k if n > 1 else 0 for k, n in zip(i[len(i) - grad.ndim :], grad.shape))
            grad[home] += share * dy[i]
    for where in ("textbook:0", "cpu:0"):
        ours = [Tensor(value, True, where) for value in (a, b)]
        z = OPS[name][0](*ours)
        z.backward(dy)
        assert str(z.device) == where
        for got, expected in ((z, y), (ours[0].grad, da), (ours[1].grad, db)):
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("where", "rtol"), [("textbook:0", 6e-8), ("cpu:0", 1e-6)])
def test_many_copies_add_up_in_single_precision(where, rtol):
    """The gradient of a number that was repeated n times; added one after the other, float32 loses the last digits."""
    n = 300_001
    b = Tensor(np.float32([1, 2]), True, where)
    (b + Tensor(np.zeros((n, 2), np.float32), device=where)).backward(np.full((n, 2), 1.1, np.float32))
    np.testing.assert_allclose(b.grad.numpy(), n * float(np.float32(1.1)), rtol=rtol)


@given(
    shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4),
    name=st.sampled_from(list(OPS)),
)
def test_any_shapes_that_broadcast(shapes, name, device):
    a, b = (positive(shape, device, seed) for seed, shape in enumerate(shapes.input_shapes))
    y = OPS[name][0](a, b)
    assert y.shape == shapes.result_shape
    np.testing.assert_allclose(y.numpy(), OPS[name][1](a.numpy(), b.numpy()), rtol=1e-15)
    y.backward(np.ones(y.shape))
    assert a.grad.shape == a.shape and b.grad.shape == b.shape
    if name == "add":
        np.testing.assert_allclose(a.grad.numpy(), np.full(a.shape, y.size / max(a.size, 1)))


def test_large_shapes_along_a_random_direction(device):
    a, b = positive((64, 33, 13), device), positive((33, 1), device, 1)
    for ours, _ in OPS.values():
        assert gradcheck(ours, [a, b], direction=True)


@pytest.mark.parametrize("name", OPS)
def test_views_and_more_than_one_block(name, device):
    a, b = positive((7, 60, 5), device), positive((5, 60), device, 1)
    f = lambda a, b: OPS[name][0](a.transpose(2, 0, 1)[::-1, 1:, ::2], b[:, None, ::-2]).T  # noqa: E731
    expected = OPS[name][1](a.numpy().transpose(2, 0, 1)[::-1, 1:, ::2], b.numpy()[:, None, ::-2])
    np.testing.assert_allclose(f(a, b).numpy(), expected.T, rtol=1e-15)
    assert gradcheck(f, [a, b], direction=True)


@pytest.mark.parametrize("name", OPS)
def test_more_axes_than_a_kernel_takes(name, device):
    a, b = positive((2, 1) * 4, device), positive((1, 3, 1, 2) * 2, device, 1)
    np.testing.assert_allclose(OPS[name][0](a, b).numpy(), OPS[name][1](a.numpy(), b.numpy()), rtol=1e-15)
    assert gradcheck(OPS[name][0], [a, b], direction=True)


def test_zero_keeps_its_sign(device):
    x = Tensor([0.0, -0.0, 1.0], device=device)
    np.testing.assert_array_equal(np.signbit((-x).numpy()), [True, False, True])
    np.testing.assert_array_equal(np.signbit((x - x).numpy()), [False] * 3)
    np.testing.assert_array_equal(np.signbit((x * -1).numpy()), [True, False, True])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", OPS)
def test_infinities_and_nan(name, device):
    edge = np.array([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, np.inf, -np.inf, np.nan])
    a, b = Tensor(edge[:, None], True, device), Tensor(edge, True, device)
    np.testing.assert_array_equal(OPS[name][0](a, b).numpy(), OPS[name][1](edge[:, None], edge))
    grads = []
    for where in ("cpu:0", device):  # NumPy's faces are checked by gradcheck, and elsewhere here
        a, b = (Tensor(x, True, where) for x in np.broadcast_arrays(edge[:, None], edge))
        OPS[name][0](a, b).sum().backward()
        grads.append((a.grad.numpy(), b.grad.numpy()))
    for ours, expected in zip(grads[1], grads[0]):
        np.testing.assert_allclose(ours, expected, rtol=1e-15)


def test_negative(device):
    x = positive((2, 3), device)
    np.testing.assert_array_equal((-x).numpy(), -x.numpy())
    assert gradcheck(F.negative, [x])
    assert (-Tensor([1, 2])).dtype == np.int64
    with pytest.raises(DTypeError, match="negative: is not defined for bool"):
        -Tensor([True])


def test_the_same_tensor_twice(device):
    x = positive((3,), device)
    for ours, _ in OPS.values():
        assert gradcheck(lambda x, ours=ours: ours(x, x), [x])


def test_operators_and_their_reflections(device):
    x = Tensor([1.0, 4.0], device=device)
    v = x.numpy()
    for ours, expected in [
        (x + 2, v + 2),
        (2 + x, v + 2),
        (x - 1, v - 1),
        (1 - x, 1 - v),
        (x * 3, v * 3),
        (3 * x, v * 3),
        (x / 2, v / 2),
        (2 / x, 2 / v),
        (x**2, v**2),
        (2**x, 2**v),
        (-x, -v),
        (x + [1.0, 2.0], v + [1, 2]),
        (np.float32([5, 6]) * x, v * [5, 6]),
    ]:
        assert isinstance(ours, Tensor) and ours.dtype == np.float32 and str(ours.device) == device
        np.testing.assert_array_equal(ours.numpy(), np.float32(expected))


def test_reflected_gradients(device):
    x = positive((2, 3), device)
    assert gradcheck(lambda x: 1 - x, [x])
    assert gradcheck(lambda x: 2 / x, [x])
    assert gradcheck(lambda x: 2**x, [x])
    assert gradcheck(lambda x: np.arange(3.0) * x, [x])


# ---------------------------------------------------------------- powers


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, 2.0, -0.5])
def test_power_with_a_number(exponent, device):
    x = positive((3, 4), device)
    np.testing.assert_allclose((x**exponent).numpy(), x.numpy() ** exponent, rtol=1e-15)
    assert gradcheck(lambda x: x**exponent, [x])
    if exponent == int(exponent):
        assert gradcheck(lambda x: x ** int(exponent), [Tensor(-x.numpy(), True, device)])


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("exponent", "slope"), [(0, 0), (1, 1), (2, 0), (3, 0)])
@pytest.mark.filterwarnings("error")
def test_the_slope_of_a_power_at_zero(exponent, slope, as_tensor, device):
    x = Tensor([0.0, 0.0], requires_grad=True, device=device)
    y = x ** (Tensor(np.float32([exponent] * 2), True, device) if as_tensor else exponent)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.float32([slope, slope]))


@pytest.mark.filterwarnings("error")
def test_to_the_power_0_the_slope_is_0_wherever_x_is():
    x = Tensor([0.0, -1.0, np.inf, np.nan], requires_grad=True)
    y = x**0
    y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), np.ones(4))
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros(4))


@pytest.mark.filterwarnings("error")
def test_the_slope_in_the_exponent_of_a_base_of_zero():
    b = Tensor([0.0, 0.5, 2.0], requires_grad=True)
    F.power(Tensor([0.0, 0.0, 0.0]), b).sum().backward()
    np.testing.assert_array_equal(b.grad.numpy(), np.zeros(3))


def test_the_slope_in_the_exponent_of_a_pole(device):
    """0^b is inf for b < 0: its slope is inf * ln(0), not 0 as for b > 0."""
    for where in (device, "textbook:0"):
        b = Tensor([-1.0, -0.5], True, where)
        with np.errstate(all="ignore"):
            F.power(Tensor([0.0, 0.0], device=where), b).sum().backward()
        np.testing.assert_array_equal(b.grad.numpy(), [-np.inf, -np.inf])


def test_power_outside_its_domain():
    with np.errstate(all="ignore"):
        assert np.isnan((Tensor([-1.0]) ** 0.5).item())
        assert (Tensor([0.0]) ** -1).item() == np.inf
    with pytest.raises(ArgumentError, match="power: integers to a negative power"):
        Tensor([2, 3]) ** -1
    np.testing.assert_array_equal((Tensor([2, 3]) ** 2).numpy(), [4, 9])


def test_division_by_zero_is_numpys(device):
    with np.errstate(all="ignore"):
        y = Tensor([1.0, -1.0, 0.0], device=device) / 0
    np.testing.assert_array_equal(y.numpy(), [np.inf, -np.inf, np.nan])


# ---------------------------------------------------------------- element types

TYPES = ["bool", "uint8", "int32", "int64", "float32", "float64"]


@pytest.mark.parametrize("a", TYPES)
@pytest.mark.parametrize("b", TYPES)
def test_how_types_mix(a, b, device):
    y = Tensor([1, 1], device=device, dtype=a) * Tensor([1, 1], device=device, dtype=b)
    floats = sorted(t for t in (a, b) if t.startswith("float"))
    assert y.dtype == (floats[-1] if floats else np.promote_types(a, b))
    assert (Tensor([1], dtype=a) / Tensor([1], dtype=b)).dtype == (floats[-1] if floats else "float32")


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("float32", 2, "float32"),
        ("float32", 2.5, "float32"),
        ("float32", True, "float32"),
        ("float64", 2.5, "float64"),
        ("float32", np.float64(2.5), "float32"),
        ("float64", np.float32(2.5), "float64"),
        ("float32", np.int64(2), "float32"),
        ("uint8", 2, "uint8"),
        ("int32", 2.5, "float32"),
        ("bool", 2, "int64"),
        ("bool", True, "bool"),
    ],
)
def test_numbers_are_weak(dtype, number, expected, device):
    x = Tensor([1, 1], device=device, dtype=dtype)
    assert (x + number).dtype == expected
    assert (number + x).dtype == expected
    assert (x + number).numpy().tolist() == [1 + number] * 2 or dtype == "bool"


@pytest.mark.parametrize("name", OPS)
def test_gradients_keep_the_types_of_the_operands(name, device):
    single, double = positive((2, 3), device, 0, "float32"), positive((3,), device, 1, "float64")
    y = OPS[name][0](single, double)
    assert y.dtype == np.float64
    y.sum().backward()
    assert single.grad.dtype == np.float32 and double.grad.dtype == np.float64
    exact = Tensor(single.numpy(), True, device, "float64")
    OPS[name][0](exact, double.detach()).sum().backward()
    np.testing.assert_allclose(single.grad.numpy(), exact.grad.numpy(), rtol=1e-6)


def test_lists_of_numbers_are_weak(device):
    x = Tensor([1.0, 2.0], device=device, dtype="float64")
    np.testing.assert_array_equal((x * [0.1, 0.2]).numpy(), np.array([0.1, 0.4]))
    assert (x.astype("float32") * [0.1, 0.2]).dtype == np.float32
    assert (Tensor([1, 2], device=device) * [1, 2]).dtype == np.int64
    assert (Tensor([1, 2], device=device) * [0.5, 2]).dtype == np.float32


def test_integers_mix_into_gradients(device):
    x = Tensor([1.0, 2.0], True, device)
    (Tensor([3, 4], device=device) * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.float32([3, 4]))


# ---------------------------------------------------------------- refusals


def test_refused_operands():
    x = Tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(ShapeError, match=r"add: shapes \(1, 3\) and \(2,\) do not broadcast.*3 meets 2"):
        x + Tensor([1.0, 2.0])
    for wrong in ("a", None, object()):
        with pytest.raises(DTypeError, match="multiply: operands must be tensors, arrays or numbers"):
            x * wrong
    with pytest.raises(DTypeError, match="divide: operands must be tensors, arrays or numbers, got complex"):
        x / 1j
    with pytest.raises(DTypeError, match="add: operands must be real"):
        x + np.complex128(1j)
    with pytest.raises(DTypeError, match="float16"):
        x + np.zeros(3, np.float16)
    with pytest.raises(DTypeError, match="add: one of a, b must be a Tensor"):
        F.add(1, 2)
    with pytest.raises(DTypeError, match="subtract: is not defined for bool"):
        Tensor([True]) - Tensor([True])
    with pytest.raises(DTypeError, match="power: is not defined for bool"):
        Tensor([True]) ** Tensor([True])
    with pytest.raises(ArgumentError, match="add: 300 is out of range for uint8"):
        Tensor([1], dtype="uint8") + 300
    with pytest.raises(DTypeError, match="negative: a must be a Tensor"):
        F.negative(1.0)
    with pytest.raises(minigrad.DeviceError, match="add: inputs on cpu:0, cpu:1"):
        Tensor([1.0], device="cpu:0") + Tensor([1.0], device="cpu:1")


def test_nothing_is_kept_that_no_gradient_needs(device):
    x, c = positive((3,), device), positive((3,), device, 1).detach()
    kept = lambda y: [k for k, v in vars(y.node).items() if isinstance(v, type(x.data)) and v.ndim]  # noqa: E731
    assert kept(x + c) == [] and kept(x - c) == []
    assert kept(x * c) == ["b"] and kept(c * x) == ["a"]
    assert kept(x / c) == ["b"]
    assert kept(x * 2) == [] and kept(x / 2) == []


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power"])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_repeated_operands_are_summed_in_pieces(name, transposed, device):
    """2^24 + 1 is 2^24 in float32: one addition after the other would lose all the ones."""
    dy = np.ones((5000, 3), np.float32)
    dy[0] = 2.0**24
    dy = np.asfortranarray(dy) if transposed else dy
    for order in (1, -1):
        a, b = (Tensor(np.ones(shape, np.float32), True, device) for shape in [(5000, 3), (3,)][::order])
        getattr(F, name)(a, b).backward(Tensor(dy, device=device))
        grad = (b if order == 1 else a).grad.numpy()
        expected = {"subtract": -order, "divide": -order, "power": (1 - order) / 2}.get(name, 1) * (2.0**24 + 4999)
        np.testing.assert_allclose(grad, expected, rtol=0, atol=160)
