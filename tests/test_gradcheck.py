"""gradcheck must find what is wrong, and say where."""

import re

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, GradientError, Tensor, gradcheck
from minigrad.engine import Function
from minigrad.tensor import apply


class Cube(Function):
    """x^3, with a derivative that may be spoilt."""

    def __init__(self, spoil=lambda dx: dx):
        self.spoil = spoil

    def forward_cpu(self, x):
        self.x = x
        return x * x * x

    def backward_cpu(self, dy):
        return self.spoil(3 * self.x * self.x * dy)


def cube(spoil):
    return lambda x: apply(Cube(spoil), x)


def normal(shape=(3, 4), seed=0, requires_grad=True):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad)


def at(index, change):
    def spoil(dx):
        dx = dx.copy()
        dx[index] = change(dx[index])
        return dx

    return spoil


@pytest.mark.parametrize("direction", [False, True])
def test_what_is_right_passes(direction):
    assert gradcheck(cube(lambda dx: dx), [normal()], direction=direction) is True
    assert gradcheck(lambda a, b: a @ b, [normal((3, 4)), normal((4, 5), 1)], direction=direction)
    assert gradcheck(cube(lambda dx: dx), [normal(())], direction=direction)


@pytest.mark.parametrize("direction", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda dx: -dx,
        lambda dx: dx * 1.0001,
        lambda dx: dx + 1e-5,
        lambda dx: dx[::-1],
        lambda dx: dx * 0,
        at((1, 2), lambda v: v * 1.001),
        at((0, 0), lambda v: np.nan),
    ],
)
def test_what_is_wrong_is_found(spoil, direction):
    with pytest.raises(GradientError, match=r"gradcheck: input 0 \(3, 4\)"):
        gradcheck(cube(spoil), [normal()], direction=direction)


def test_one_wrong_element_of_many_is_found_along_a_random_direction():
    with pytest.raises(GradientError, match="along a random direction"):
        gradcheck(cube(at((50, 60), lambda v: v + 0.1)), [normal((100, 100))], direction=True)


def test_the_message_names_the_worst_element():
    def spoil(dx):
        return at((1, 2), lambda v: v + 10)(at((0, 1), lambda v: v + 1e-3)(dx))

    x = normal()
    with pytest.raises(GradientError) as info:
        gradcheck(lambda a, x: F.add(a, apply(Cube(spoil), x)), [normal(seed=1), x], seed=5)
    text = str(info.value)
    assert "input 1 (3, 4) at element (1, 2)" in text and "difference 10" in text and "seed=5" in text
    analytic, numeric = (float(re.search(rf"{word} (\S+?),", text)[1]) for word in ("analytic", "numeric"))
    r = np.random.default_rng([5, 0]).standard_normal((3, 4))
    assert analytic == pytest.approx(numeric + 10) and numeric == pytest.approx((3 * x.numpy() ** 2 * r)[1, 2])


def test_an_input_that_backward_forgets():
    class Forgets(Function):
        def forward_cpu(self, a, b):
            return a * b

        def backward_cpu(self, dy):
            return dy * 0 + 1, None

    with pytest.raises(GradientError, match="input 1"):
        gradcheck(lambda a, b: apply(Forgets(), a, b), [Tensor(np.ones(1), True), Tensor(np.ones(1), True)])


def test_inputs_without_requires_grad_stay_as_they_are():
    a, labels = normal(), Tensor([0, 1])
    assert gradcheck(lambda a, b, labels: (a * b)[labels], [a, normal(seed=1, requires_grad=False), labels])


def test_inputs_that_fn_closes_over():
    w, x = normal((4, 2)), normal((3, 4), 1)
    assert gradcheck(lambda _: x @ w, [w])
    with pytest.raises(GradientError):
        gradcheck(lambda _: x @ w.detach() + w.sum() * 0, [w])


def test_non_contiguous_inputs():
    x = normal((4, 3))
    x.data = x.data.T[::-1]
    assert gradcheck(lambda x: x * x, [x])


def test_random_ops_are_reseeded():
    def noisy(x):
        noise = x.device.generator.standard_normal(x.shape)
        return x * Tensor(noise, device=x.device)

    assert gradcheck(noisy, [normal()])
    private = np.random.default_rng(0)
    with pytest.raises(GradientError, match="gave different results from the same inputs and seed 3"):
        gradcheck(lambda x: x * Tensor(private.standard_normal(x.shape)), [normal()], seed=3)


def test_fn_that_writes_into_its_input():
    def bad(x):
        y = x * 2
        x.data += 1
        return y

    with pytest.raises(GradientError, match=r"changed input 0 \(3, 4\) in place"):
        gradcheck(bad, [normal()])


@pytest.mark.parametrize("wrong", [False, True])
def test_values_and_gradients_are_put_back(wrong):
    x, y = normal(), normal(seed=1)
    x.grad = kept = normal(seed=2, requires_grad=False)
    before = x.numpy().copy()
    try:
        gradcheck(lambda x, y: apply(Cube((lambda dx: -dx) if wrong else (lambda dx: dx)), x) * y, [x, y])
        assert not wrong
    except GradientError:
        assert wrong
    assert x.grad is kept and y.grad is None and x.numpy().tobytes() == before.tobytes()


def test_refused():
    with pytest.raises(DTypeError, match="gradcheck: input 1 is float32: differences need float64"):
        gradcheck(F.add, [normal(), Tensor([1.0])])
    with pytest.raises(DTypeError, match="gradcheck: input 0 must be a Tensor, got ndarray"):
        gradcheck(F.exp, [np.ones(3)])
    with pytest.raises(DTypeError, match="gradcheck: fn must return a float64 Tensor, got float32"):
        gradcheck(lambda x: x.astype("float32"), [normal()])
    with pytest.raises(DTypeError, match="gradcheck: fn must return a float64 Tensor, got tuple"):
        gradcheck(lambda x: (x, x), [normal()])
    with pytest.raises(ArgumentError, match="gradcheck: nothing to check"):
        gradcheck(F.exp, [normal(requires_grad=False)])
    with pytest.raises(ArgumentError, match="gradcheck: input 0 is the result of an op"):
        gradcheck(F.exp, [normal() * 2])
    with pytest.raises(GradientError, match="the output does not depend on any input"):
        gradcheck(lambda x: x.detach(), [normal()])
