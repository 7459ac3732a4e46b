"""Checks of settings, for ops, layers, optimisers and initial weights: each takes who asks, the argument's name, its
value, and returns it as a plain int, float, bool or tuple, or raises ArgumentError with rule and value.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..errors import ArgumentError

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))

_MOST = 2**63 - 1  # what NumPy counts with
_MOST_PADDING = 2**31 - 1  # what kernels count with; no image is larger


def integer(op: str, name: str, value: Any, minimum: int = -_MOST, maximum: int = _MOST) -> int:
    """`value` as an int in this range (booleans, NumPy's too, and 2.0 are not integers)."""
    if type(value) is int and minimum <= value <= maximum:  # nearly always
        return value
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except (TypeError, ValueError):  # ValueError: a Tensor of several elements
        number = None
    if number is None or not minimum <= number <= maximum:
        rule = f" >= {minimum}" if minimum > -_MOST else ""
        rule += f", and at most {maximum}" if number is not None and number > maximum else ""
        raise ArgumentError(f"{op}: {name} must be an integer{rule}, got {_seen(value)}")
    return number


def is_number(value: Any) -> bool:
    """Whether it is a real number and finite: Python's or NumPy's, no boolean, nothing that only can be converted."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond 1e308
        return False


def number(op: str, name: str, value: Any, minimum: float = -math.inf, above: float = -math.inf) -> float:
    """`value` as a finite float, at least `minimum` and more than `above`."""
    if not is_number(value) or value < minimum or value <= above:
        rule = f" >= {minimum:g}" if minimum > -math.inf else f" > {above:g}" if above > -math.inf else ""
        raise ArgumentError(f"{op}: {name} must be a finite number{rule}, got {_seen(value)}")
    return float(value)


def flag(op: str, name: str, value: Any) -> bool:
    """True or False, Python's or NumPy's: of anything else, such as "no", the truth would surprise."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{op}: {name} must be True or False, got {_seen(value)}")
    return bool(value)


def one_of(op: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        *most, last = map(repr, choices)
        raise ArgumentError(f"{op}: {name} must be {', '.join(most)} or {last}, got {_seen(value)}")
    return value


def element_type(value: Any) -> np.dtype[Any] | None:
    """The element type of NumPy's that it is or names, np.float64, "float64", float; None where it does not."""
    try:
        return None if value is None else np.dtype(value)
    except (TypeError, ValueError):
        return None


def names_a_dtype(value: Any) -> bool:
    """Whether it is an element type, or the name of one: NumPy's, or torch.float64, which no function takes."""
    return element_type(value) is not None or f"{type(value).__module__}.{type(value).__name__}" == "torch.dtype"


def pair(op: str, name: str, value: Any, minimum: int, maximum: int = _MOST) -> Pair:
    """An int, or two of them as (vertical, horizontal)."""
    if not isinstance(value, (tuple, list)):
        return (integer(op, name, value, minimum, maximum),) * 2
    if len(value) != 2:
        raise ArgumentError(f"{op}: {name} must be an int or (vertical, horizontal), got {_seen(value)}")
    return integer(op, name, value[0], minimum, maximum), integer(op, name, value[1], minimum, maximum)


def padding_of(op: str, value: Any) -> Padding:
    """int, (ph, pw) or ((top, bottom), (left, right)) as the last form."""
    if isinstance(value, str):
        raise ArgumentError(
            f"{op}: padding must be an int, (ph, pw) or ((top, bottom), (left, right)), got {value!r}: for "
            "'valid' write 0, and for 'same', with stride 1 and an odd kernel_size, dilation * (kernel_size - 1) // 2"
        )
    if isinstance(value, (tuple, list)) and any(isinstance(part, (tuple, list)) for part in value):
        if len(value) != 2 or any(not isinstance(part, (tuple, list)) or len(part) != 2 for part in value):
            raise ArgumentError(
                f"{op}: padding must be an int, (ph, pw) or ((top, bottom), (left, right)), got {_seen(value)}"
            )
        down, across = (pair(op, "padding", part, 0, _MOST_PADDING) for part in value)
        return down, across
    ph, pw = pair(op, "padding", value, 0, _MOST_PADDING)
    return (ph, ph), (pw, pw)


def _seen(value: Any) -> str:
    """The value as messages show it, long or not."""
    try:
        text = repr(value)
    except ValueError:
        text = f"{type(value).__name__} of more digits than Python prints"
    return text if len(text) <= 200 else f"{text[:200]}... ({type(value).__name__})"
