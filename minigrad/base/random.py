"""Random numbers: a generator for every device, one seed for all, and numbers that belong to an image.

Source: the generators of NumPy: SFC64 for a device's own stream; Philox, counter-based, for what belongs to images
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from ..errors import ArgumentError

Stream = tuple[int, int]  # (0 for the processor and 1 for cards, number of the device)


class Owner(Protocol):
    """What has a generator: a device."""

    name: str
    generator: np.random.Generator


_seed = 0
_owners: list[tuple[Owner, Stream]] = []
_awaited: dict[str, np.random.Generator] = {}  # from set_rng_state, for devices that do not exist yet, by name


def give_generator(owner: Owner, stream: Stream) -> None:
    """Set `owner.generator`; manual_seed will restart it, set_rng_state replace it."""
    owner.generator = _awaited.pop(owner.name) if owner.name in _awaited else _generator(stream)
    _owners.append((owner, stream))


def manual_seed(seed: int) -> None:
    """Restart the random generator of every device, present and future: the same seed gives the same bits.

    Devices draw from different streams: dropout on cpu:1 does not repeat the mask of cpu:0.
    """
    global _seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ArgumentError(f"manual_seed: seed must be an integer >= 0, got {seed!r}")
    _seed = int(seed)
    _awaited.clear()
    for owner, stream in list(_owners):
        owner.generator = _generator(stream)


def initial_seed() -> int:
    """The seed in force (0 until manual_seed is called)."""
    return _seed


def get_rng_state() -> dict[str, Any]:
    """How far the random numbers of all devices have come, for set_rng_state: {"seed": 0, "devices": {"cpu:0": ...}}.

    Plain numbers and text, which JSON can hold.  What else draws numbers (a Generator of NumPy's in a program of your
    own) has a state of its own.
    """
    generators = {**_awaited, **{owner.name: owner.generator for owner, _ in list(_owners)}}
    return {"seed": _seed, "devices": {name: generator_state(g) for name, g in generators.items()}}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Go on from get_rng_state(): every device, present and future, draws what it would have drawn next then.

    A device that did not exist then starts afresh, with the seed of then.  ArgumentError for anything that
    get_rng_state does not return; nothing is changed then.
    """
    global _seed
    try:
        seed, devices = state["seed"], dict(state["devices"])
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
        generators = {str(name): _generator_from(saved) for name, saved in devices.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(
            f"set_rng_state: expected what get_rng_state() returns: {type(error).__name__}: {error}"
        ) from None
    _seed = seed
    for owner, stream in list(_owners):
        owner.generator = generators.pop(owner.name) if owner.name in generators else _generator(stream)
    _awaited.clear()
    _awaited.update(generators)


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state of a generator of NumPy's as plain numbers and text; numbers of many words as lists."""
    return _plain(generator.bit_generator.state)


def load_generator_state(generator: np.random.Generator, state: Any) -> None:
    """Bring a generator to a state of generator_state; ArgumentError for what is none of its kind."""
    try:
        generator.bit_generator.state = state
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        kind = type(generator.bit_generator).__name__
        raise ArgumentError(f"the state of a random generator {kind} was expected, got {state!r}: {error}") from None


def _plain(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _generator_from(state: Any) -> np.random.Generator:
    generator = np.random.Generator(np.random.SFC64(0))
    generator.bit_generator.state = state
    return generator


def _generator(stream: Stream) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([_seed, *stream])))


# ---------------------------------------------------------------- numbers that belong to images


class Chunk:
    """Which images of a batch a function is being run on: see random_key.  Chunks of one batch share `keys`."""

    def __init__(self, first: int, images: int, keys: list[int], lock: threading.Lock):
        self.first, self.images, self.keys, self.lock = first, images, keys, lock
        self.drawn = 0


current_chunk: ContextVar[Chunk | None] = ContextVar("minigrad_chunk", default=None)


_part: ContextVar[tuple[int, int]] = ContextVar("minigrad_part_of_batch", default=(0, 1))


@contextmanager
def part_of_batch(first: int, images: int) -> Iterator[None]:
    """Inside, ops see `images` images of a batch whose others are elsewhere: from number `first` on."""
    token = _part.set((first, max(images, 1)))
    try:
        yield
    finally:
        _part.reset(token)


def random_key(owner: Owner) -> tuple[int, int, int]:
    """A 64-bit key for one run of a random op, the place in the batch of its first image, and how many images it sees.

    Outside in_chunks and part_of_batch the batch counts as one image.  A random op draws the numbers of image i from a
    counter-based generator with this key, at counters that depend on i alone.  Whole batch or chunk by chunk, on any
    number of threads or processes: each image gets the same numbers.  The n-th random op of one chunk has the key of
    the n-th of every other, drawn from the device's generator by the first.
    """
    chunk, (first, images) = current_chunk.get(), _part.get()
    if chunk is None:
        return int(owner.generator.bit_generator.random_raw()), first, images
    with chunk.lock:
        if chunk.drawn == len(chunk.keys):
            chunk.keys.append(int(owner.generator.bit_generator.random_raw()))
        chunk.drawn += 1
        return chunk.keys[chunk.drawn - 1], first + chunk.first, chunk.images


# ---------------------------------------------------------------- fork

_forking = threading.Lock()
_held: list[Any] = []


def _before_fork() -> None:
    """Wait until no thread draws numbers: the child would find the generator's lock taken, for ever."""
    _forking.acquire()
    _held[:] = [owner.generator.bit_generator.lock for owner, _ in list(_owners)]
    for lock in _held:
        lock.acquire()


def _after_fork() -> None:
    for lock in _held:
        lock.release()
    _held.clear()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
