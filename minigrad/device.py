"""Devices: where a tensor lives.  A device has a name, arrays of its own kind, and one random generator.

`cpu:0`, `cpu:1`, ... are lanes of the same processor.  A tensor belongs to one of them, two of them never meet in
one op, and each has a worker thread of its own (processor/parallel.py), so that what is split over two GPUs in the
paper is split in the same way, and runs at the same time, on a laptop.  `textbook:0` is the processor too, and runs the
formula of every op in plain NumPy, its first "face" (engine.py, Function), for reading and for stepping through.
`cuda:N` is a graphics card, reached through CuPy; `cudasim:N` is one that is emulated on the processor, kernel by
kernel, thread by thread.

A kind of device is a subclass of Device in a file of its own (processor/cpu.py, processor/textbook.py, gpu/cuda.py,
cudasim/device.py): it says which face of an op it runs, and how its arrays do the few things that tensors, the engine
and optimisers ask of arrays of any kind.  Ops ask for more: their fast face is NumPy, and the card's uses what gpu/
adds.
"""

from __future__ import annotations

import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Union

import numpy as np

from .base import random
from .base.arguments import names_a_dtype
from .base.spellings import not_found
from .errors import DeviceError

Array = Any  # numpy.ndarray on the processor, cupy.ndarray or cudasim.SimArray on a card
DeviceLike = Union["Device", str]
Shape = tuple[int, ...]

KINDS: dict[str, type[Device]] = {}  # "cpu": CPU, ...: every kind enters itself

_NAME = re.compile(r"([a-z]+)(?::([0-9]+))?")
_devices: dict[str, Device] = {}
_default: tuple[Device, ...] | None = None


class Device(ABC):
    """One place to compute; get it with `device("cpu:0")`, which returns the same object every time.

    `kind` is "cpu", "textbook", "cuda" or "cudasim", `index` its number, `name` both ("cpu:0").  `generator` is the
    only source of randomness of the ops that run on this device; `manual_seed` restarts it.
    """

    kind: ClassVar[str]
    array_type: type  # of its arrays
    on_host: ClassVar[bool] = False  # whether its arrays are NumPy's, in the memory of the processor
    shares_cores: ClassVar[bool] = False  # whether its ops use the processor's cores, by `split` and in_chunks
    plain: ClassVar[bool] = False  # for reading: all is done in the calling thread, and backward is the ten lines
    threads: int | None = None  # set by set_num_threads; None: an equal share of the cores
    generator: np.random.Generator

    def __init_subclass__(cls, kind: str | None = None) -> None:
        if kind is not None:
            cls.kind = kind
            KINDS[kind] = cls

    def __init__(self, index: int):
        self.index, self.name = index, f"{self.kind}:{index}"
        # An emulated card draws what the real one would, and textbook:0 what cpu:0 does.
        random.give_generator(self, (int(not self.on_host), index))

    def __repr__(self) -> str:
        return f"device('{self.name}')"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:  # a pickled device comes back as this process's object
        return device, (self.name,)

    @property
    @abstractmethod
    def xp(self) -> ModuleType:
        """The array module of this device: numpy, or cupy.  DeviceError where it cannot be used, or there is none."""

    # ---------------------------------------------------------------- running ops

    @abstractmethod
    def forward(self, function: Any, *arrays: Array) -> Array:
        """What an op makes of these arrays, by the face that this device runs."""

    @abstractmethod
    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        """The gradients of an op's inputs, by the same face."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all that was begun here is done; DeviceError where the device cannot be used."""

    # ---------------------------------------------------------------- arrays

    @abstractmethod
    def from_host(self, values: np.ndarray) -> Array:
        """A copy of a NumPy array, its memory in the same order."""

    @abstractmethod
    def to_host(self, x: Array) -> np.ndarray:
        """A NumPy array of the same values: a view where x is one of NumPy's, else a copy."""

    @abstractmethod
    def received(self, x: Array, source: Device) -> Array:
        """A copy of an array of another device, its memory in the same order."""

    @abstractmethod
    def ones(self, shape: Shape, dtype: Any) -> Array: ...

    @abstractmethod
    def copied(self, x: Array) -> Array: ...

    @abstractmethod
    def converted(self, x: Array, dtype: Any) -> Array:
        """A copy with another element type, by the rule of casting.py."""

    @abstractmethod
    def added(self, a: Array, b: Array) -> Array:
        """a + b, arrays of one shape and element type, as a fresh array."""

    @abstractmethod
    def add_into(self, total: Array, part: Array) -> None:
        """total += part, arrays of one shape and element type."""

    @abstractmethod
    def put(self, x: Array, index: Any, values: Any) -> None:
        """x[index] = values (an array of this device, or a NumPy array), broadcast and converted; NumPy's errors."""

    @abstractmethod
    def update(self, operation: str, x: Array, other: Any) -> None:
        """x = x `operation` other, in place: add, subtract, multiply, true_divide; NumPy's rules and errors.

        other: an array of this device, a NumPy array, a list or a number.
        """

    @abstractmethod
    def owns(self, x: Any) -> bool:
        """Whether x is an array of this device."""

    @abstractmethod
    def writable(self, x: Array) -> bool: ...

    @abstractmethod
    def shares(self, a: Array, b: Array) -> bool:
        """Whether writing to one array may change the other."""

    @abstractmethod
    def extent(self, x: Array) -> tuple[int, int]:
        """From where to where in memory: of two arrays that share some, these overlap."""

    if TYPE_CHECKING:  # what only cards have (gpu/) is asked of devices that are cards by those who know

        def __getattr__(self, name: str) -> Any: ...

    else:

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # a property that has failed, with its own error
            raise AttributeError(not_found("Device", f"{type(self).__name__!r} object", name))


def device(spec: DeviceLike) -> Device:
    """The device of that name: "cpu" is "cpu:0", "cuda" is "cuda:0".  DeviceError for anything else.

    As this function has the name, variables and parameters that hold a device are often called `where`.

    Naming a graphics card does not touch it: CuPy is imported when the first tensor goes there.
    """
    if isinstance(spec, Device):
        return spec
    found = _devices.get(spec) if isinstance(spec, str) else None
    if found is not None:
        return found
    match = _NAME.fullmatch(spec) if isinstance(spec, str) else None
    if match is None or match[1] not in KINDS:
        advice = (
            "element types are for .astype()" if names_a_dtype(spec) else f"the kinds are {', '.join(sorted(KINDS))}"
        )
        raise DeviceError(f"device: expected a name such as 'cpu:0' or 'cuda:1', got {spec!r}: {advice}")
    kind, index = match[1], int(match[2] or 0)
    name = f"{kind}:{index}"
    with _naming:  # two threads get the same object, and the device one generator
        if name not in _devices:
            _devices[name] = KINDS[kind](index)
    return _devices[name]


_naming = threading.RLock()
if hasattr(os, "register_at_fork"):  # if forked while another thread names a device, a child would wait for ever
    os.register_at_fork(before=_naming.acquire, after_in_parent=_naming.release, after_in_child=_naming.release)


def default_devices() -> tuple[Device, ...]:
    """The devices that programs use when told nothing: set_default_devices, else MINIGRAD_DEVICES, else cpu:0."""
    global _default
    if _default is None:
        names = os.environ.get("MINIGRAD_DEVICES", "cpu:0")
        try:
            _default = tuple(device(name.strip()) for name in names.split(","))
        except DeviceError as error:
            raise DeviceError(f"MINIGRAD_DEVICES={names!r}: {error}") from None
    return _default


def default_device() -> Device:
    """The device of a tensor made without naming one: the first of default_devices()."""
    return default_devices()[0]


def set_default_devices(*specs: DeviceLike) -> None:
    """Set the default devices, `set_default_devices("cpu:0", "cpu:1")`; with no argument, back to MINIGRAD_DEVICES."""
    global _default
    _default = tuple(device(spec) for spec in specs) or None
