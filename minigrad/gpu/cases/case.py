"""What a case is, how it runs, how two runs are compared, and what it must move and compute at least.

The last follows from the op's formula: `forward = "x y"` says that the forward pass reads x and writes y, each once;
`backward = "dy y dx"` likewise.  `flops` counts additions and multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...device import DeviceLike
from ...device import device as device_named
from ...tensor import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Results = dict[str, np.ndarray]


def no_flops(inputs: Shapes, y: Shape) -> int:
    """Of ops that only wait for memory."""
    return 0


@dataclass(frozen=True)
class Case:
    """One op at two sizes.  Inputs are standard normal numbers under the names of the op's formula.

    Small shapes exceed one tile of their kernel, with a remainder, wherever that is possible in a moment.
    """

    name: str
    kernels: tuple[str, ...]  # the files of kernels/ that it runs
    function: Callable[..., Tensor]  # called with the inputs by name
    small: Shapes
    real: Shapes
    forward: str = "x y"
    backward: str = "dy y dx"  # "": the op has none; "views": it moves nothing
    flops: Callable[[Shapes, Shape], int] = no_flops  # of the forward pass, from the shapes of inputs and y
    backward_flops: float = 2  # times those of the forward pass
    positive: bool = False  # inputs are made positive: roots, logarithms
    tolerance: float = 1e-5  # times the largest number of the result: float32; see differences()
    dtypes: tuple[str, ...] = ("float32", "float64")  # those that it takes
    matrix_units: bool = False  # whether it runs on cards alone that have them: Card.has_matrix_units
    prepare: Callable[..., Callable[[], Any]] | None = None  # called with the inputs: what is timed; None: the function


def run(case: Case, device: DeviceLike, size: str, dtype: Any, seed: int = 0) -> Results:
    """Forward and backward on a device; the result "y" and every gradient, "dx", ..., as NumPy arrays.

    size: "small" or "real".  Random ops draw the same numbers on every device.
    """
    where = device_named(device)
    where.generator = np.random.Generator(np.random.SFC64(seed))
    inputs = {
        name: Tensor(array, bool(case.backward), where) for name, array in inputs_of(case, size, dtype, seed).items()
    }
    y = case.function(**inputs)
    results = {"y": y.numpy().copy()}
    if case.backward:
        y.backward(Tensor(gradient_of(y.shape, y.dtype, seed), device=where))
        results |= {f"d{name}": x.grad.numpy().copy() for name, x in inputs.items() if x.grad is not None}
    return results


def inputs_of(case: Case, size: str, dtype: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """The input arrays, the same on every call."""
    random = np.random.default_rng([seed, 0])
    arrays = {}
    for name, shape in getattr(case, size).items():
        array = random.standard_normal(shape, np.float64 if math.prod(shape) < 1e6 else np.float32)
        arrays[name] = (abs(array) + 0.1 if case.positive else array).astype(dtype, copy=False)
    return arrays


def gradient_of(shape: Shape, dtype: Any, seed: int = 0) -> np.ndarray:
    """The gradient of the result with which backward begins."""
    return np.random.default_rng([seed, 1]).standard_normal(shape).astype(dtype)


def as_tf32(x: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to TF32, as cvt.rna.tf32.f32 does: to 10 bits of mantissa, ties away from zero."""
    bits = (np.ascontiguousarray(x, np.float32).view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), bits.view(np.float32), x)


def differences(case: Case, results: Results, expected: Results) -> dict[str, float]:
    """How far each result is from the expected one, in units of the tolerance: 1 and less is right.

    The tolerance is the case's, times the largest number of the expected array; in float64 it is 10^-7 of that.  NaN or
    inf in other places, or other shapes, dtypes or results, are infinitely far.
    """
    if set(results) != set(expected):
        return dict.fromkeys(sorted(set(results) ^ set(expected)), math.inf)
    return {name: _difference(case, results[name], array) for name, array in expected.items()}


def _difference(case: Case, result: np.ndarray, expected: np.ndarray) -> float:
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return math.inf
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(result, expected) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(result[~finite], expected[~finite], equal_nan=True):
        return math.inf
    result, expected = result[finite], expected[finite]
    if not np.isfinite(result).all():
        return math.inf
    if expected.size == 0:
        return 0.0
    allowed = case.tolerance * (1e-7 if expected.dtype == np.float64 else 1) * float(np.abs(expected).max())
    worst = float(np.abs(result - expected).max())
    return worst / allowed if allowed else math.inf if worst else 0.0


# ---------------------------------------------------------------- bytes and FLOPs


def moved_bytes(case: Case, size: str, y: Shape, itemsize: int, backward: bool) -> int:
    """Bytes that the formula must read and write at least; y: the shape of the result."""
    shapes = {**getattr(case, size), "y": y}
    names = (case.backward if backward else case.forward).split()
    arrays = (name if name in shapes else name.removeprefix("d") for name in names if name != "views")
    return itemsize * sum(math.prod(shapes[name]) for name in arrays)


def computed_flops(case: Case, size: str, y: Shape, backward: bool) -> int:
    """Floating-point operations of the formula; 0 where memory alone decides."""
    forward = case.flops(getattr(case, size), y)
    return int(forward * case.backward_flops) if backward else forward
