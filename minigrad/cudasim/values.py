"""Arrays and numbers as one writes them in a command: x=normal:30x40, x=[1,2,3], x=data.npy, n=1000."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, OutOfMemoryError, printable
from .memory import memory_left
from .passing import Empty, Parameter
from .trace import C_TYPES

GENERATORS = """\
  zeros:SHAPE  ones:SHAPE  arange:SHAPE         0, 1, or 0, 1, 2, ...; SHAPE is 1000 or 30x40
  normal:SHAPE                                  random: mean 0, deviation 1
  uniform:SHAPE  uniform:SHAPE:LOW:HIGH         random: from 0 to 1, or from LOW to HIGH
  integers:SHAPE  integers:SHAPE:LOW:HIGH       random whole numbers from 0 to 9, or from LOW to HIGH - 1
  empty:SHAPE                                   memory that nobody has written yet, as cudaMalloc gives it
  file.npy  [1,2,3]  [[1,2],[3,4]]  null        a file of NumPy's, numbers, a null pointer
  5  2.5  true  [1,2,3,4]                       for a parameter that is a number, or a float4 and its kin
Generators and numbers get the element type of their parameter."""

_SHAPE = re.compile(r"\d+(x\d+)*")
_MOST_BYTES = 8 << 30  # of one array: a shape with a digit too many is refused, not tried


class Value:
    """What NAME=TEXT asks for.  dtype: the one that it has by itself, else None."""

    def __init__(self, name: str, text: str, seed: int):
        self.name, self.text, self.seed = name, text, seed
        self.loaded: Any = _load(name, text) if text.endswith(".npy") else None
        self.dtype = self.loaded.dtype if self.loaded is not None else None

    def of(self, parameter: Parameter) -> Any:
        """The argument for that parameter.  ArgumentError for what it cannot take."""
        if self.loaded is not None:
            return self.loaded if parameter.pointer or self.loaded.ndim else self.loaded[()]
        if not parameter.pointer:
            return self._literal(parameter)
        if self.text.lower() in ("null", "none", "nullptr"):
            return None
        word, *rest = self.text.split(":")
        dtype, lanes = _types(parameter)
        if word in ("zeros", "empty", *_MADE) and rest:
            return self._generated(parameter, word, rest, dtype, lanes)
        if self.text.startswith("["):
            return _numbers(self._literal(parameter), parameter, dtype)
        raise ArgumentError(
            f"{parameter} wants an array: {_shown(self.name, self.text)} is none.  Arrays are written so:\n{GENERATORS}"
        )

    def _literal(self, parameter: Parameter) -> Any:
        words = {"true": True, "false": False, "nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}
        if self.text.lower() in words:
            return words[self.text.lower()]
        try:
            return ast.literal_eval(self.text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ArgumentError(f"{parameter} wants a number, got {_shown(self.name, self.text)}") from None

    def _generated(self, parameter: Parameter, word: str, rest: list[str], dtype: np.dtype[Any], lanes: int) -> Any:
        asked, limits = _shown(self.name, self.text), rest[1:]
        if not _SHAPE.fullmatch(rest[0]):
            raise ArgumentError(f"{asked}: a shape is written 1000 or 30x40")
        shape = tuple(map(int, rest[0].split("x"))) + ((lanes,) if lanes > 1 else ())
        elements, left = float(np.prod(shape, dtype=float)), memory_left()
        if dtype.itemsize * elements > _MOST_BYTES:
            raise ArgumentError(f"{asked}: that is an array of more than {_MOST_BYTES >> 30} GB")
        needed = elements * (dtype.itemsize + (8 if word in _MADE else 0))  # they are made as 8 bytes each
        if left is not None and needed > left:
            raise OutOfMemoryError(f"{asked}: to make it takes {needed / 1e9:.2f} GB, {left / 1e9:.2f} GB are left")
        if len(limits) not in (0, 2) or (limits and word not in ("uniform", "integers")):
            raise ArgumentError(f"{asked}: only uniform and integers have limits, two of them: {word}:SHAPE:LOW:HIGH")
        try:
            bounds = [float(limit) for limit in limits]
        except ValueError:
            raise ArgumentError(f"{asked}: {printable(':'.join(limits))} are no limits: LOW:HIGH") from None
        if word == "empty":
            return Empty(shape, dtype)
        if word == "zeros":
            return np.zeros(shape, dtype)
        if dtype.kind not in "biuf":
            raise ArgumentError(f"{asked}: {parameter} has records as elements: give zeros:SHAPE or a .npy file")
        if word in ("normal", "uniform") and dtype.kind != "f":
            raise ArgumentError(f"{asked}: {parameter} has elements of {dtype}: integers:{rest[0]} makes such")
        made = _MADE[word](np.random.default_rng(self.seed), shape, *bounds)
        if dtype.kind in "iu" and made.size:
            holds = np.iinfo(dtype)
            if made.min() < holds.min or made.max() > holds.max:
                raise ArgumentError(f"{asked}: {made.min()} to {made.max()} do not fit {dtype}")
        return made.astype(dtype)


class _Variable(Parameter):
    def __str__(self) -> str:
        return f"variable `{printable(self.declared.removesuffix('*'))} {printable(self.name)}`"


def variable_value(name: str, declared: str, text: str, seed: int) -> Any:
    """What NAME=TEXT asks for, for a variable of a file whose elements are declared so; "" where nobody knows."""
    kind = C_TYPES.get(declared)
    value = Value(name, text if re.match(r"\[|\w+:", text) or text.endswith(".npy") else f"[{text}]", seed)
    if kind is None and value.loaded is None:
        what = f"elements of {printable(declared)}" if declared else "elements of a type that is not plain to see"
        raise ArgumentError(f"variable {printable(name)} has {what}: give a .npy file of as many bytes")
    variable = _Variable(0, f"{declared}*", name, f"{kind or 'void'}*")
    if value.dtype is not None and not variable.takes(value.dtype):
        raise ArgumentError(f"{variable} wants {variable.wanted()}, got {value.dtype}")
    made = value.of(variable)
    if isinstance(made, Empty):
        raise ArgumentError(f"{variable} is never empty: {_shown(name, text)}")
    return made


def _types(parameter: Parameter) -> tuple[np.dtype[Any], int]:
    base, lanes = parameter.lanes
    if base == "void":
        raise ArgumentError(f"{parameter} does not say what its elements are: give a .npy file")
    return np.dtype(base), lanes


def _load(name: str, path: str) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(f"{printable(name)}: {printable(path)} cannot be read: {printable(reason)}") from None


def _numbers(values: Any, parameter: Parameter, dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers of a list as an array of that type; ArgumentError where one would change."""
    try:
        plain = np.array(values)
        if plain.dtype.kind not in "biuf":
            raise ValueError("no numbers")
        with np.errstate(all="ignore"):
            made = plain.astype(dtype)
        lost = (
            dtype.kind in "biu" and not np.array_equal(made, plain) or bool((np.isinf(made) & np.isfinite(plain)).any())
        )
    except (ValueError, OverflowError, TypeError):
        raise ArgumentError(f"{parameter} wants numbers in a list, got {printable(str(values)[:80])}") from None
    if lost:
        raise ArgumentError(f"{parameter} holds {dtype}: not every number of {printable(str(values)[:80])} fits")
    return made


def _shown(name: str, text: str) -> str:
    return printable(f"{name}={text[:80]}")


def _integers(random: np.random.Generator, shape: tuple[int, ...], low: float = 0, high: float = 10) -> np.ndarray:
    if not low < high or abs(low) > 2**62 or abs(high) > 2**62:
        raise ArgumentError(f"integers: LOW must be less than HIGH, got {low:g} and {high:g}")
    return random.integers(int(low), int(high), shape)


def _uniform(random: np.random.Generator, shape: tuple[int, ...], low: float = 0, high: float = 1) -> np.ndarray:
    if not (low < high and np.isfinite(high - low)):
        raise ArgumentError(f"uniform: LOW must be less than HIGH, got {low:g} and {high:g}")
    return random.uniform(low, high, shape)


_MADE: dict[str, Callable[..., np.ndarray]] = {
    "ones": lambda random, shape: np.ones(shape),
    "arange": lambda random, shape: np.arange(np.prod(shape, dtype=np.int64)).reshape(shape),
    "normal": lambda random, shape: random.standard_normal(shape),
    "uniform": _uniform,
    "integers": _integers,
}
