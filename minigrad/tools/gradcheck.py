"""Check gradients against central differences, the definition of a derivative.

    df/dx_i  ~  (f(x + eps e_i) - f(x - eps e_i)) / (2 eps)

An output y of any shape is made a scalar by a fixed random cotangent r, f = sum(r * y): backward gets r as
the gradient of y, so one backward gives every analytic df/dx_i at once, and no op is needed to form the
sum.  The check knows tensors only; differences are taken on the bare arrays, in float64, where rounding
(about 1e-16 / eps) and the neglected third-order term (about eps^2) both stay far below the tolerances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..base.grad_mode import no_grad
from ..base.random import manual_seed
from ..errors import ArgumentError, DTypeError, GradientError
from ..tensor import Tensor


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    direction: bool = False,
    seed: int = 0,
) -> bool:
    """True if backward of `fn(*inputs)` agrees with central differences; GradientError where it does not.

    fn: returns a float64 tensor of any shape.  It may close over its inputs instead of using the arguments.
    inputs: tensors; those with requires_grad are checked; floating-point ones must be float64 (DTypeError).
    eps: the step.  Keep inputs further than this from kinks (0 of relu, ties of max).
    rtol, atol: the two may differ by atol + rtol * size.
    direction: False checks every element, two forwards each.  True moves all elements of an input at once,
        along one random direction: two forwards per input at any size.
    seed: `manual_seed(seed)` runs before each forward, so that ops that draw random numbers can be checked.

    The error names the worst element: input, index, analytic and numeric value, difference, seed.
    Also checked: fn returns the same bits when called again with the same seed, and leaves its inputs
    unchanged.  The `.grad` of the inputs is put back afterwards.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = _inputs_to_check(inputs)
    before = [x.grad for x in inputs]
    try:
        r, y, analytic = _analytic(fn, inputs, seed)
        _check_repeatable(fn, inputs, y, seed)
        random = np.random.default_rng([seed, 1])
        worst: tuple[float, str] = (0.0, "")
        for i in checked:
            probes = _one_direction(inputs[i], random) if direction else _each_element(inputs[i])
            for where, move, size in probes:
                numeric = _slope(fn, inputs, inputs[i], move, r, eps, seed)
                parts = analytic[i] * size if direction else analytic[i][where]
                exact = float(np.sum(parts))
                # Along a random direction the slope is a sum of random signs, and may be near 0 by chance, so the
                # difference is measured against the size that such a sum usually has.
                allowed = atol + rtol * max(abs(exact), abs(numeric), float(np.linalg.norm(parts)))
                excess = abs(exact - numeric) / allowed
                if not excess <= max(worst[0], 1.0):  # "not <=": NaN is a failure
                    at = "along a random direction" if direction else f"at element {where}"
                    worst = (
                        math.inf if math.isnan(excess) else excess,
                        f"gradcheck: input {i} {inputs[i].shape} {at}: analytic {exact:.10g}, "
                        f"numeric {numeric:.10g}, difference {exact - numeric:.3g} where {allowed:.3g} "
                        f"is allowed (eps={eps:g}, seed={seed})",
                    )
        if worst[1]:
            raise GradientError(worst[1])
    finally:
        for x, grad in zip(inputs, before):
            x.grad = grad
    return True


def _inputs_to_check(inputs: Sequence[Tensor]) -> list[int]:
    """The positions of the inputs with requires_grad."""
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            kind = type(x).__name__
            raise DTypeError(f"gradcheck: input {i} must be a Tensor, got {kind}: close fn over the rest")
        if x.dtype.kind == "f" and x.dtype != np.float64:
            raise DTypeError(
                f"gradcheck: input {i} is {x.dtype}: differences need float64, make it with dtype='float64'"
            )
        if x.requires_grad and not x.is_leaf:
            raise ArgumentError(
                f"gradcheck: input {i} is the result of an op: only leaves keep gradients: give "
                "x.detach().requires_grad_()"
            )
    checked = [i for i, x in enumerate(inputs) if x.requires_grad and x.size]
    if not checked:
        raise ArgumentError("gradcheck: nothing to check: no input with elements has requires_grad=True")
    return checked


def _analytic(
    fn: Callable[..., Tensor], inputs: Sequence[Tensor], seed: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(cotangent, output, gradient of every input), by one forward and one backward."""
    values = [x.numpy().copy() for x in inputs]
    for x in inputs:
        x.grad = None
    manual_seed(seed)
    output = fn(*inputs)
    if not isinstance(output, Tensor) or output.dtype != np.float64:
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise DTypeError(f"gradcheck: fn must return a float64 Tensor, got {kind}: compute in float64 throughout")
    if not output.requires_grad:
        raise GradientError(
            "gradcheck: the output does not depend on any input with requires_grad=True: look for detach(), numpy() "
            "and no_grad() in fn"
        )
    r = np.random.default_rng([seed, 0]).standard_normal(output.shape)
    y = output.numpy().copy()
    output.backward(Tensor(r, device=output.device))
    for i, (x, value) in enumerate(zip(inputs, values)):
        if not np.array_equal(x.numpy(), value, equal_nan=value.dtype.kind == "f"):
            raise GradientError(
                f"gradcheck: fn or its backward changed input {i} {x.shape} in place: let it write to a copy"
            )
    gradients = [np.zeros(x.shape) if x.grad is None else x.grad.numpy().copy() for x in inputs]
    return r, y, gradients


def _check_repeatable(fn: Callable[..., Tensor], inputs: Sequence[Tensor], y: np.ndarray, seed: int) -> None:
    if not np.array_equal(y, _forward(fn, inputs, seed), equal_nan=True):
        raise GradientError(
            f"gradcheck: fn gave different results from the same inputs and seed {seed}: let it keep no state, and "
            "draw from minigrad's generators alone"
        )


def _forward(fn: Callable[..., Tensor], inputs: Sequence[Tensor], seed: int) -> np.ndarray:
    with no_grad():
        manual_seed(seed)
        return fn(*inputs).numpy().copy()


def _each_element(x: Tensor) -> Iterable[tuple[Any, Any, Any]]:
    """(where, how to move x by one step, the step's size) for every element."""
    for where in np.ndindex(x.shape):
        yield where, where, 1.0


def _one_direction(x: Tensor, random: np.random.Generator) -> Iterable[tuple[Any, Any, Any]]:
    v = random.standard_normal(x.shape)
    yield ..., v, v


def _slope(fn: Any, inputs: Sequence[Tensor], x: Tensor, move: Any, r: Any, eps: float, seed: int) -> float:
    """(f(x + eps * move) - f(x - eps * move)) / (2 eps); x is written to, and put back bit by bit."""
    where, v = (move, 1.0) if isinstance(move, tuple) else (..., move)
    here = x.numpy()[where].copy()

    def put(values: Any) -> None:
        with no_grad():
            x[where] = values

    try:
        put(here + eps * v)
        plus = _forward(fn, inputs, seed)
        put(here - eps * v)
        minus = _forward(fn, inputs, seed)
    finally:
        put(here)
    # Subtracted before they are summed: the sum then carries the rounding of the change alone.
    return float(np.sum(r * (plus - minus)) / (2 * eps))
