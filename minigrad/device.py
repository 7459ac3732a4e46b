"""Devices: where a tensor lives.  A device has a name, an array module, a share of the cores and one random generator.

`cpu:0`, `cpu:1`, ... are lanes of the same processor.  A tensor belongs to one of them, two of them never meet in
one op, and each has a worker thread of its own (parallel.py), so that what is split over two GPUs in the paper is
split in the same way, and runs at the same time, on a laptop.  `textbook:0` is the processor too, and runs the first
face of every op: the formula in plain NumPy, for reading and for stepping through.  `cuda:N` is a graphics card,
reached through CuPy; `cudasim:N` is one that is emulated on the processor, kernel by kernel, thread by thread
(minigrad/cudasim).
"""

from __future__ import annotations

import os
import re
import threading
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from .errors import ArgumentError, DeviceError

if TYPE_CHECKING:
    from .cuda import CudaRuntime
    from .cudasim.runtime import SimRuntime

DeviceLike = Union["Device", str]

_NAME = re.compile(r"(cpu|textbook|cuda|cudasim)(?::([0-9]+))?")
_devices: dict[str, Device] = {}
_default: tuple[Device, ...] | None = None
_seed = 0
_lock = threading.Lock()


class Device:
    """One place to compute; get it with `device("cpu:0")`, which returns the same object every time.

    `kind` is "cpu", "textbook", "cuda" or "cudasim", `index` its number, `name` both ("cpu:0").
    `generator` is the only source of randomness of the ops that run on this device; `manual_seed` restarts it.
    """

    def __init__(self, kind: str, index: int):
        self.kind, self.index, self.name = kind, index, f"{kind}:{index}"
        self.is_cpu = kind in ("cpu", "textbook")
        self.threads: int | None = None  # set by set_num_threads; None: an equal share of the cores
        self.generator = _generator(kind, index)
        self._runtime: CudaRuntime | SimRuntime | None = None

    def __repr__(self) -> str:
        return f"device('{self.name}')"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:  # a pickled device comes back as this process's object
        return device, (self.name,)

    @property
    def xp(self) -> ModuleType:
        """The array module of this device: numpy, or cupy (DeviceError where it cannot be used).

        An emulated card has none: what is done there is done by kernels.
        """
        if self.kind == "cudasim":
            raise DeviceError(f"{self.name}: has no array module: call .numpy() on the tensor, or use ops")
        return np if self.is_cpu else cupy_for(self.index)

    @property
    def runtime(self) -> CudaRuntime | SimRuntime:
        """What manages memory and launches kernels on a graphics card; DeviceError where it cannot be used."""
        if self._runtime is None:
            with _lock:
                if self._runtime is None:
                    self._runtime = _new_runtime(self)
        return self._runtime


def device(spec: DeviceLike) -> Device:
    """The device of that name: "cpu" is "cpu:0", "cuda" is "cuda:0".  DeviceError for anything else.

    Naming a graphics card does not touch it: CuPy is imported when the first tensor goes there.
    """
    if isinstance(spec, Device):
        return spec
    found = _devices.get(spec) if isinstance(spec, str) else None
    if found is not None:
        return found
    match = _NAME.fullmatch(spec) if isinstance(spec, str) else None
    if match is None:
        raise DeviceError(f"device: expected a name such as 'cpu:0' or 'cuda:1', got {spec!r}")
    kind, index = match[1], int(match[2] or 0)
    name = f"{kind}:{index}"
    return _devices.setdefault(name, Device(kind, index))  # atomic: two threads get the same object


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


def manual_seed(seed: int) -> None:
    """Restart the random generator of every device, present and future: the same seed gives the same bits.

    Devices draw from different streams: dropout on cpu:1 does not repeat the mask of cpu:0.
    """
    global _seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ArgumentError(f"manual_seed: seed must be an integer >= 0, got {seed!r}")
    _seed = int(seed)
    for known in _devices.values():
        known.generator = _generator(known.kind, known.index)


def initial_seed() -> int:
    """The seed in force (0 until manual_seed is called)."""
    return _seed


class Chunk:
    """Which images of a batch a function is being run on: see random_key.  Chunks of one batch share `keys`."""

    def __init__(self, first: int, images: int, keys: list[int], lock: threading.Lock):
        self.first, self.images, self.keys, self.lock = first, images, keys, lock
        self.drawn = 0


current_chunk: ContextVar[Chunk | None] = ContextVar("minigrad_chunk", default=None)


def random_key(where: Device) -> tuple[int, int, int]:
    """A 64-bit key for one run of a random op, the place in the batch of its first image, and how many images it sees.

    Outside in_chunks the batch counts as one image.  A random op draws the numbers of image i from a counter-based
    generator with this key, at counters that depend on i alone.  Whole batch or chunk by chunk, on any number of
    threads: each image gets the same numbers.  The n-th random op of one chunk has the key of the n-th of every other,
    drawn from the device's generator by the first.
    """
    chunk = current_chunk.get()
    if chunk is None:
        return int(where.generator.bit_generator.random_raw()), 0, 1
    with chunk.lock:
        if chunk.drawn == len(chunk.keys):
            chunk.keys.append(int(where.generator.bit_generator.random_raw()))
        chunk.drawn += 1
        return chunk.keys[chunk.drawn - 1], chunk.first, chunk.images


def _generator(kind: str, index: int) -> np.random.Generator:
    # An emulated card draws what the real one would, and textbook:0 what cpu:0 does.
    return np.random.Generator(
        np.random.SFC64(np.random.SeedSequence([_seed, int(kind not in ("cpu", "textbook")), index]))
    )


def _new_runtime(where: Device) -> CudaRuntime | SimRuntime:
    if where.kind == "cuda":
        cupy_for(where.index)  # or an error that says what is missing
        from .cuda import CudaRuntime

        return CudaRuntime(where.index)
    if where.kind == "cudasim":
        from .cudasim.runtime import SimRuntime

        return SimRuntime(where.index)
    raise DeviceError(f"{where.name}: is the processor: it runs no kernels")


def cupy_for(index: int) -> ModuleType:
    """CuPy, once it is known that card `index` can be used; DeviceError says which link of the chain is missing."""
    name = f"cuda:{index}"
    try:
        import cupy
    except OSError as error:  # CuPy 14 makes the folder for its compiled kernels at once
        raise DeviceError(
            f"{name}: CuPy cannot be imported ({error}): set CUPY_CACHE_DIR to a folder that can be written to"
        ) from None
    except Exception as error:  # ImportError, and what a damaged installation raises
        raise DeviceError(
            f"{name}: CuPy cannot be imported ({error}): pip install 'minigrad[cuda12]' or 'minigrad[cuda13]', "
            "or use cpu:0"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises types of its own for a missing or too old driver
        raise DeviceError(
            f"{name}: CuPy is here, but the NVIDIA driver does not answer ({error}): install it, or "
            "where it is an older one, for CUDA 12: pip install 'minigrad[cuda12]'; or use cpu:0"
        ) from None
    if index >= count:
        raise DeviceError(f"{name}: the driver sees {count} device(s), numbered from 0: use cuda:0 .. or cpu:0")
    return cupy


# ---------------------------------------------------------------- fork

_forking = threading.Lock()
_held: list[Any] = []


def _before_fork() -> None:
    """Wait until no thread draws numbers or makes a runtime: the child would find their locks taken, for ever."""
    _forking.acquire()
    _held[:] = [_lock, *(known.generator.bit_generator.lock for known in list(_devices.values()))]
    for lock in _held:
        lock.acquire()


def _after_fork() -> None:
    for lock in _held:
        lock.release()
    _held.clear()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
