"""From NumPy arrays and numbers to a kernel's arguments: each must be exactly what its parameter asks for.

A pointer takes an array of its element's type, or None for a null pointer; a number's parameter takes a number that it
can hold; a struct's takes its bytes, or a structured scalar of NumPy.  What a kernel would misread is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, printable
from .memory import Memory
from .module import Area
from .streams import Stream

FROM_HOST, FROM_KERNEL = 2, 1  # marks of written bytes: who wrote them.  0: nobody
# Numbers of 2 bytes, or pairs of them, that are structs here.
_SHORT = {
    "float16": re.compile(r"\b(?:__)?half(2?)\b"),
    "uint16": re.compile(r"\b(?:__nv_|nv_)?bfloat16(2?)\b"),
}
_VECTOR = re.compile(r"\b(u?)(char|short|int|long|longlong|float|double)([1-4])\b")
_LANES = {"char": "int8", "short": "int16", "int": "int32", "long": "int64", "longlong": "int64"}
_COMPLEX = {("float32", 2): "complex64", ("float64", 2): "complex128"}


class Empty:
    """An array whose memory nobody has written yet, as cudaMalloc gives it: to read it before writing is a fault."""

    def __init__(self, shape: int | Sequence[int], dtype: Any):
        self.shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(size) for size in shape)
        if any(size < 0 for size in self.shape):
            raise ArgumentError(f"cudasim.empty: sizes must not be negative, got {self.shape}")
        self.dtype = np.dtype(dtype)

    def __repr__(self) -> str:
        return f"cudasim.empty({self.shape}, '{self.dtype}')"


def empty(shape: int | Sequence[int], dtype: Any = "float32") -> Empty:
    """What `run` takes for an array that nobody has written yet: check mode reports whoever reads it before."""
    return Empty(shape, dtype)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel.  number: from 1; declared, name: as the source has them; type: as the emulator says it,
    "const float32*", "int32", "V16"."""

    number: int
    declared: str
    name: str
    type: str

    @property
    def pointer(self) -> bool:
        return self.type.endswith("*")

    @property
    def const(self) -> bool:
        """Is what it points to an input?"""
        return self.type.startswith("const ")

    @property
    def element(self) -> str:
        """The type of a number, or of what a pointer points to: "float32", "V16", "void"."""
        return self.type.removeprefix("const ").removesuffix("*").removesuffix(" const")

    @property
    def lanes(self) -> tuple[str, int]:
        """NumPy's type of what is in an element, and how many: ("float32", 4) of a float4, ("V24", 1) of a struct."""
        if self.element[0] != "V":
            return self.element, 1
        size, vector = int(self.element[1:]), _VECTOR.search(re.sub(r"\bdim3\b", "uint3", self.declared))
        if vector:
            kind = _LANES.get(vector[2], "float32" if vector[2] == "float" else "float64")
            base = "u" * bool(vector[1]) + kind
            if np.dtype(base).itemsize * int(vector[3]) == size:
                return base, int(vector[3])
        for base, pattern in _SHORT.items():
            found = pattern.search(self.declared)
            if found and size == 2 * int(found[1] or 1):
                return base, int(found[1] or 1)
        return self.element, 1

    def takes(self, dtype: np.dtype[Any]) -> bool:
        """May an array behind this pointer have that dtype?"""
        base, lanes = self.lanes
        if base == "void":
            return not dtype.hasobject
        if base[0] == "V":  # a struct: any record of its size, or its bytes
            return not dtype.hasobject and (dtype.itemsize == int(base[1:]) and dtype.kind == "V" or dtype == np.uint8)
        others = [_COMPLEX[base, lanes]] if (base, lanes) in _COMPLEX else []
        record = lanes > 1 and dtype.kind == "V" and dtype.itemsize == int(self.element[1:])
        bfloat16 = base == "uint16" and dtype.name == "bfloat16"  # of the package ml_dtypes
        return dtype in map(np.dtype, (base, *others)) or (record and not dtype.hasobject) or bfloat16

    def wanted(self) -> str:
        """What an array behind this pointer has to be, in words."""
        base, lanes = self.lanes
        if base[0] == "V":
            return f"records of {base[1:]} bytes (a structured dtype, align=True), or uint8"
        return base + (f" ({lanes} for each element)" if lanes > 1 else "")

    def __str__(self) -> str:
        between = "" if self.declared.endswith(("*", "&")) and not self.name else " "
        return f"parameter {self.number}, `{printable(self.declared + between + self.name).strip()}`,"


@dataclass
class Passed:
    """An array argument in the emulator's memory."""

    parameter: Parameter
    memory: Memory
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    marks: np.ndarray | None

    @property
    def label(self) -> str:
        return f"{self.parameter.name} (parameter {self.parameter.number}, {self.dtype} {self.shape})"

    def area(self) -> Area:
        address = self.memory.bytes.__array_interface__["data"][0]
        return Area(address, self.memory.nbytes, not self.parameter.const, self.marks, self.label)

    def values(self) -> np.ndarray:
        return self.memory.bytes.view(self.dtype).reshape(self.shape).copy()

    def written(self) -> np.ndarray | None:
        """For each element, whether the kernel has written it; None where no marks are kept (fast mode)."""
        if self.marks is None:
            return None
        return (self.marks.reshape(*self.shape, self.dtype.itemsize) == FROM_KERNEL).any(axis=-1)


def parameters_of(declared: Sequence[tuple[str, str]], types: Sequence[str]) -> list[Parameter]:
    """declared: types and names as the source has them; types: as the emulator says them, in the same order."""
    found = []
    for i, type_ in enumerate(types):
        text, name = declared[i] if i < len(declared) else (type_, "")
        found.append(Parameter(i + 1, text, name or f"parameter{i + 1}", type_))
    return found


def check_supported(parameters: Sequence[Parameter], text: str) -> None:
    """ArgumentError for a kernel with parameters that hold addresses of other arrays: nobody could say which."""
    for parameter in parameters:
        if parameter.element.endswith("*"):
            raise ArgumentError(
                f"{parameter} is a pointer to pointers, which cannot be passed: give the kernel one array, and let it "
                "compute where in it a row begins"
            )
        if parameter.element[0] == "V" and parameter.lanes[0][0] == "V":
            member = _pointer_member(text, parameter.declared)
            if member:
                raise ArgumentError(
                    f"{parameter} is a struct with a pointer in it (`{printable(member)}`), which cannot be passed: "
                    "give the kernel the array as a parameter of its own"
                )


def _pointer_member(text: str, declared: str) -> str | None:
    """The first member of the struct of that type that is a pointer; None if there is none, or no such struct."""
    for name in re.findall(r"[A-Za-z_]\w*", declared):
        head = re.search(rf"\bstruct\s+(?:[\w()]+\s+)*?{name}\s*(?::[^{{;]*)?\{{", text)
        if head:
            body = _closed(text[head.end() :])
        else:
            tail = re.search(rf"\}}\s*{name}\s*;", text)
            if not tail:
                continue
            start = text.rfind("typedef", 0, tail.start())
            body = _closed(text[text.find("{", max(start, 0)) + 1 :])
        for statement in re.split(r"[;{}]", body):
            member = re.fullmatch(r"\s*((?:const\s+)?[\w:]+(?:\s+\w+)*\s*\*+[\s\w*\[\],]*)", statement)
            if member:
                return " ".join(member[1].split())
    return None


def _closed(text: str) -> str:
    """The text up to the brace that closes what is open at its beginning."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:i]
    return text


def pass_arguments(
    parameters: Sequence[Parameter], arguments: Sequence[Any], keep_marks: bool
) -> tuple[list[bytes], list[Passed]]:
    """The bytes of each argument, and the arrays among them, copied into memory of the emulator.

    keep_marks: note which bytes are written, and by whom.  An array that is given twice is one array for the kernel,
    too.  ArgumentError or DTypeError, which name the parameter, for what does not fit.
    """
    if len(arguments) != len(parameters):
        wanted = ", ".join(f"{parameter.declared} {parameter.name}" for parameter in parameters) or "none"
        raise ArgumentError(f"{len(arguments)} arguments for {len(parameters)} parameters: {printable(wanted)}")
    stream = Stream("cudasim.run")
    params: list[bytes] = []
    arrays: list[Passed] = []
    given: list[tuple[np.ndarray, Passed]] = []
    for parameter, value in zip(parameters, arguments):
        if not parameter.pointer:
            params.append(as_bytes(parameter, value))
            continue
        if value is None:
            params.append(bytes(8))
            continue
        _check_array(parameter, value)
        passed = None
        if isinstance(value, np.ndarray):
            passed = _given_before(parameter, value, given)
        if passed is None:
            passed = _copied(parameter, value, stream, keep_marks)
        if isinstance(value, np.ndarray):
            given.append((value, passed))
        arrays.append(passed)
        params.append(np.uint64(passed.area().address).tobytes())
    return params, arrays


def _check_array(parameter: Parameter, value: Any) -> None:
    wanted = parameter.wanted()
    if not isinstance(value, (np.ndarray, Empty)):
        kind = f"the number {value!r}" if isinstance(value, (int, float, np.number)) else type(value).__name__
        raise DTypeError(f"{parameter} wants an array of {wanted}, got {printable(kind)}: pass a NumPy array, or None")
    if parameter.takes(value.dtype):
        size = 0 if parameter.element == "void" else _element_bytes(parameter)
        nbytes = math.prod(value.shape) * value.dtype.itemsize
        if size and nbytes % size:
            raise ArgumentError(
                f"{parameter} has elements of {size} bytes: an array of {nbytes} bytes holds no whole number of them"
            )
        return
    base = parameter.lanes[0]
    hint = ""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and base[0] != "V":
        hint = f": {parameter.name}.astype('{base}')"
    raise DTypeError(f"{parameter} wants {wanted}, got {value.dtype}{hint}")


def _element_bytes(parameter: Parameter) -> int:
    return int(parameter.element[1:]) if parameter.element[0] == "V" else np.dtype(parameter.element).itemsize


def _given_before(parameter: Parameter, value: np.ndarray, given: list[tuple[np.ndarray, Passed]]) -> Passed | None:
    """The memory of the same array under another name.  ArgumentError where two overlap in part, and one is written."""
    for other, passed in given:
        same = other.__array_interface__ == value.__array_interface__
        if same and value.size:
            return Passed(parameter, passed.memory, passed.dtype, passed.shape, passed.marks)
        if parameter.const and passed.parameter.const:
            continue
        if np.may_share_memory(other, value) and np.shares_memory(other, value):
            raise ArgumentError(
                f"{parameter} shares some of its memory with that of {passed.parameter.name}: pass the same array "
                "twice, or copies"
            )
    return None


def _copied(parameter: Parameter, value: np.ndarray | Empty, stream: Stream, keep_marks: bool) -> Passed:
    nbytes = math.prod(value.shape) * value.dtype.itemsize
    memory = Memory(stream, nbytes)
    marks = np.full(nbytes, 0 if isinstance(value, Empty) else FROM_HOST, np.uint8) if keep_marks else None
    if isinstance(value, np.ndarray):
        memory.bytes[...] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return Passed(parameter, memory, value.dtype, value.shape, marks)


# ---------------------------------------------------------------- numbers and structs


def as_bytes(parameter: Parameter, value: Any) -> bytes:
    """A number or a struct as the kernel reads it."""
    base, lanes = parameter.lanes
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if base[0] == "V":
        return _struct(parameter, value, int(base[1:]))
    if parameter.element[0] == "V" and isinstance(value, (bytes, np.void)):
        return _struct(parameter, value, int(parameter.element[1:]))
    if lanes > 1:
        numbers = list(value) if isinstance(value, (tuple, list, np.ndarray)) else None
        if numbers is None or len(numbers) != lanes:
            raise ArgumentError(f"{parameter} wants {lanes} numbers, such as {tuple(range(lanes))}, got {_seen(value)}")
        return b"".join(_number(parameter, number, np.dtype(base)) for number in numbers)
    return _number(parameter, value, np.dtype(base))


def _struct(parameter: Parameter, value: Any, size: int) -> bytes:
    data = value.tobytes() if isinstance(value, np.void) else value
    if not isinstance(data, (bytes, bytearray)):
        raise DTypeError(
            f"{parameter} is a struct of {size} bytes: pass its bytes, or a scalar of a structured dtype with "
            f"align=True, got {_seen(value)}"
        )
    if len(data) != size:
        raise ArgumentError(
            f"{parameter} is a struct of {size} bytes, got {len(data)}: is the dtype made with align=True?"
        )
    return bytes(data)


def _number(parameter: Parameter, value: Any, dtype: np.dtype[Any]) -> bytes:
    if isinstance(value, np.ndarray) or not isinstance(value, (bool, int, float, np.number, np.bool_)):
        raise DTypeError(f"{parameter} wants a number ({dtype}), got {_seen(value)}")
    if isinstance(value, np.complexfloating):
        raise DTypeError(f"{parameter} wants a real number ({dtype}), got {value}")
    number: Any = value.item() if isinstance(value, (np.number, np.bool_)) else value
    if dtype.kind == "b":
        if number not in (0, 1):
            raise ArgumentError(f"{parameter} wants True or False, got {value}")
        return np.bool_(number).tobytes()
    if dtype.kind in "iu":
        if isinstance(number, float):
            raise DTypeError(f"{parameter} wants an integer ({dtype}), got {value}")
        limits = np.iinfo(dtype)
        if not limits.min <= number <= limits.max:
            raise ArgumentError(f"{parameter} holds {dtype}, from {limits.min} to {limits.max}: {value} does not fit")
        return np.array(number, dtype).tobytes()
    with np.errstate(over="ignore"):
        try:
            stored = np.array(float(number)).astype(dtype)
        except OverflowError:
            stored = np.array(np.inf).astype(dtype)
    if np.isinf(stored) and not (isinstance(number, float) and math.isinf(number)):
        raise ArgumentError(f"{parameter} holds {dtype}: {value} does not fit")
    return stored.tobytes()


def _seen(value: Any) -> str:
    text = f"an array of {value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)
    return printable(text if len(text) < 80 else text[:77] + "...")
