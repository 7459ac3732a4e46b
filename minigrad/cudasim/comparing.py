"""Are two arrays the same but for rounding?  Of a kernel and its reference, or of a kernel in two thread orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, printable

# Of float16, float32 and float64: what a sum of some thousand numbers may lose by the order of its terms, and exp and
# its kin by another library's last bits.
TOLERANCES = {2: 1e-2, 4: 1e-4, 8: 1e-10}


@dataclass(frozen=True)
class Difference:
    """Where an array is not what it should be.  index: the first such element; wrong of count elements are."""

    name: str
    index: tuple[int, ...]
    got: Any
    wanted: Any
    wrong: int
    count: int
    tolerance: float
    names: tuple[str, str] = ("", "expected ")

    def __str__(self) -> str:
        where = f"{self.name}[{', '.join(map(str, self.index))}]" if self.index else self.name
        margin = f" by more than the tolerance, {self.tolerance:g}," if self.tolerance else ""
        first, second = self.names
        return (
            f"{printable(where)}: {first}{self.got!s}, {second}{self.wanted!s} ({self.wrong} of {self.count} elements "
            f"differ{margin.removesuffix(',')})"
        )


def tolerance_of(dtype: np.dtype[Any]) -> float:
    """What an element may be off, as a share of its value, and a tenth of it as a share of the array's largest."""
    if dtype.kind not in "fc":
        return 0.0
    return TOLERANCES.get(dtype.itemsize // (2 if dtype.kind == "c" else 1), 1e-10)


def difference(
    name: str,
    got: np.ndarray,
    wanted: Any,
    tolerance: float | None = None,
    names: tuple[str, str] = ("", "expected "),
) -> Difference | None:
    """Where `got` is not `wanted`; None where it is.

    An element may be off by `tolerance` (None: by dtype) times its value, plus a tenth of that times the largest finite
    value of the array; integers must be equal.  NaN is equal to NaN, infinities to those of their sign.
    ArgumentError for a `wanted` of another size.
    """
    if wanted is None:
        raise ArgumentError(f"{printable(name)}: nothing is expected, None: an array is wanted")
    wanted = np.asarray(wanted)
    if wanted.dtype.kind not in "biufcV" or (wanted.dtype.kind == "V") != (got.dtype.kind == "V"):
        raise ArgumentError(f"{printable(name)}: {got.dtype} cannot be compared with {wanted.dtype}")
    if wanted.shape != got.shape:
        if wanted.size != got.size:
            raise ArgumentError(f"{printable(name)}: has shape {got.shape}, what is expected has {wanted.shape}")
        wanted = wanted.reshape(got.shape)
    if wanted.dtype == got.dtype and same_bytes(got, wanted):
        return None
    tolerance = tolerance_of(got.dtype) if tolerance is None else tolerance
    if got.dtype.kind in "fc" or (wanted.dtype.kind in "fc" and got.dtype.kind in "iu"):
        same = _near(got, wanted, tolerance)
    elif got.dtype.kind == "V":
        same = _same_records(got, wanted.astype(got.dtype))
    else:
        same = got == wanted
    if same.all():
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmin(same)), same.shape)) if same.shape else ()
    wrong = int(np.count_nonzero(~same))
    return Difference(name, index, got[index], wanted[index], wrong, got.size, tolerance, names)


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of the same shape and dtype hold the same bytes: quick, and in little memory."""
    first, second = (np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in (a, b))
    return np.array_equal(first, second)


def _near(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> Any:
    kind: Any = np.complex128 if "c" in (got.dtype.kind, wanted.dtype.kind) else np.float64
    with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN complains of the mere conversion
        a, b = got.astype(kind), wanted.astype(kind)
        sizes = np.abs(b)
        largest = sizes.max(initial=0.0, where=np.isfinite(sizes))
        near = np.abs(a - b) <= tolerance * (sizes + largest / 10)
        near &= np.isfinite(a) & np.isfinite(b)
        return near | (a == b) | (np.isnan(a) & np.isnan(b))


def _same_records(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which records are equal, field by field: padding is no content.  Of one dtype; a field may be an array."""
    if a.dtype.names is None:
        if a.dtype.kind == "V":
            a, b = (np.ascontiguousarray(v).view(np.uint8).reshape(*v.shape, v.dtype.itemsize) for v in (a, b))
            return np.asarray((a == b).all(axis=-1))
        return np.asarray((a == b) | ((a != a) & (b != b)))
    same = np.ones(a.shape, bool)
    for name in a.dtype.names:
        field = _same_records(a[name], b[name])
        same &= field.all(axis=tuple(range(a.ndim, field.ndim)))
    return same
