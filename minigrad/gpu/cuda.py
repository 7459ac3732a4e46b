"""`cuda:N` as a device, and what to say where it cannot be one; the runtime is in minigrad/gpu/cuda_runtime.py.

`cuda:N` is the card of that number, as CuPy counts them.  MINIGRAD_CUDA gives other cards: the first number in it is
the card of cuda:0, the second that of cuda:1, and so on.  A card may stand there twice: with MINIGRAD_CUDA=0,0 what is
written for two cards runs on one.  Each of the two devices has its own stream, random generator and arrays.  Where
several processes of one training are on a machine (minigrad/distributed), each has a part of its cards, and these are
counted from 0.
"""

from __future__ import annotations

import os
import re
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import DeviceError
from .card import Card

if TYPE_CHECKING:
    from .cuda_runtime import CudaRuntime


class Cuda(Card, kind="cuda"):
    @property
    def xp(self) -> ModuleType:
        return cupy_for(self.index)

    @property
    def card(self) -> int:
        """The number of the card that this device is on; DeviceError where it cannot be used."""
        return _card_of(self.index)[1]

    @property
    def array_type(self) -> type:  # type: ignore[override]
        return self.runtime.array_type

    def _new_runtime(self) -> CudaRuntime:
        card = self.card  # or an error that says what is missing
        from .cuda_runtime import CudaRuntime

        return CudaRuntime(self.index, card)


def cards() -> tuple[int, ...]:
    """The card of each device that can be used, cuda:0, cuda:1, ...: as MINIGRAD_CUDA says, or else every card once.

    DeviceError where CuPy or the driver does not answer, and where MINIGRAD_CUDA is wrong.
    """
    return _cards("cuda")[1]


def cupy_for(index: int) -> ModuleType:
    """CuPy, once it is known that cuda:<index> can be used; DeviceError says which link of the chain is missing."""
    return _card_of(index)[0]


def _card_of(index: int) -> tuple[ModuleType, int]:
    name = f"cuda:{index}"
    cupy, there = _cards(name)
    if index < len(there):
        return cupy, there[index]
    listed = ",".join(map(str, _listed() or ()))
    if listed:
        raise DeviceError(
            f"{name}: MINIGRAD_CUDA={listed} has the cards of {len(there)} device(s), numbered from "
            "0: list a card for each device that is used"
        )
    shared = "" if _share == (0, 1) else " for this process"
    raise DeviceError(
        f"{name}: the driver sees {len(there)} card(s){shared}, numbered from 0: use cuda:0 .. or cpu:0, or set "
        "MINIGRAD_CUDA to the card of each device: MINIGRAD_CUDA=0,0 makes cuda:0 and cuda:1 of one card"
    )


def _cards(name: str) -> tuple[ModuleType, tuple[int, ...]]:
    """CuPy, and the card of each device; `name` says for which device it is asked."""
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
    listed, ours = _listed(), _ours(count)
    if listed is None:
        return cupy, ours
    for index, card in enumerate(listed):
        if card >= len(ours):
            shared = "" if _share == (0, 1) else f", of which this process has {len(ours)}"
            raise DeviceError(
                f"{name}: MINIGRAD_CUDA={','.join(map(str, listed))}: there is no card {card} for cuda:{index}: the "
                f"driver sees {count} card(s){shared}, numbered from 0: list these, or unset it"
            )
    return cupy, tuple(ours[card] for card in listed)


def share_cards(number: int, processes: int) -> None:
    """Of so many processes that see the same cards this one, by its number, has a part of them from here on, in turn
    where there are fewer cards than processes; MINIGRAD_CUDA counts in it.  Before the first use of a card."""
    global _share
    _share = number, processes


def _ours(count: int) -> tuple[int, ...]:
    number, processes = _share
    each = count // processes
    return tuple(range(number * each, (number + 1) * each)) if each else (number % count,) if count else ()


_share = (0, 1)


@cache  # read once: a change halfway through a program would move its devices
def _listed() -> tuple[int, ...] | None:
    """The numbers in MINIGRAD_CUDA; None where it is not set."""
    text = os.environ.get("MINIGRAD_CUDA")
    if text is None:
        return None
    numbers = [number.strip() for number in text.split(",")]
    for index, number in enumerate(numbers):
        if not re.fullmatch("[0-9]{1,9}", number):
            raise DeviceError(
                f"MINIGRAD_CUDA={text!r}: the card of cuda:{index} must be a number, got {number!r}: list the card of "
                "each device, as in MINIGRAD_CUDA=0,0, or unset it"
            )
    return tuple(map(int, numbers))
