"""What this machine has: cards, driver, CuPy, CUDA, and whether they can be used."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minigrad

from ...device import Device
from ...device import device as device_named
from ...errors import DeviceError
from ..cuda import Cuda, cards, cupy_for
from .report import Part, cell, table


@dataclass(frozen=True)
class Machine:
    """The devices to check, one or two of one kind; `title` names them, `lines` say more."""

    devices: tuple[Device, ...]
    title: str
    lines: list[str]

    @property
    def emulated(self) -> bool:
        return self.devices[0].kind == "cudasim"


def look_at(part: Part, names: Sequence[str]) -> None:
    """Tell the machine."""
    part.tell("machine", look(names))


def look(names: Sequence[str] = ()) -> Machine:
    """The machine with these devices (default: all cards, at most two); DeviceError says what is missing."""
    if not names:
        names = [f"cuda:{i}" for i in range(min(2, len(cards())))]
    devices = tuple(device_named(name) for name in names)
    kinds = {device.kind for device in devices}
    on_host = any(device.on_host for device in devices)
    if len(kinds) > 1 or on_host or not 1 <= len(set(devices)) == len(devices) <= 2:
        raise DeviceError(f"hardware_check: give one or two devices cuda:N (or cudasim:N), got {', '.join(names)}")
    for device in devices:
        _ = device.runtime  # or an error
    on_cards = [device for device in devices if isinstance(device, Cuda)]
    title, lines = _cards(on_cards) if on_cards else _emulator()
    software = f"Python {platform.python_version()}, NumPy {np.__version__}, minigrad {minigrad.__version__}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        software += f", PyTorch {importlib.metadata.version('torch')}"
    return Machine(devices, title, [f"{time.strftime('%Y-%m-%d')}, {_processor()}, {software}", "", *lines])


def _emulator() -> tuple[str, list[str]]:
    return "EMULATED", [
        "**EMULATED: no graphics card has run any of this.**  The kernels ran on the processor, thread by thread",
        "(minigrad/cudasim).  What follows shows that the check itself works; its times say nothing about a card.",
    ]


def _cards(devices: Sequence[Cuda]) -> tuple[str, list[str]]:
    cupy = cupy_for(devices[0].index)
    runtime, rows, names = cupy.cuda.runtime, [], []
    for device in devices:
        is_ = runtime.getDeviceProperties(device.card)
        names.append(is_["name"].decode())
        memory = f"{is_['totalGlobalMem'] / 1e9:.1f} GB"
        rows.append((device, names[-1], f"sm_{is_['major']}{is_['minor']}", is_["multiProcessorCount"], memory))
    versions = (
        f"CuPy {cupy.__version__}, CUDA {_version(runtime.runtimeGetVersion())}, the driver allows "
        f"{_version(runtime.driverGetVersion())}, NVRTC {_nvrtc(cupy)}"
    )
    lines = [versions, "", *table(("device", "card", "architecture", "multiprocessors", "memory"), rows)]
    here, *other = (device.card for device in devices)
    if other == [here]:
        lines += ["", "Both devices are on one card."]
    elif other:
        peers = runtime.deviceCanAccessPeer(here, *other)
        lines += ["", f"The cards {'reach' if peers else 'do not reach'} each other's memory directly."]
    return names[0], lines


def _version(number: int) -> str:
    """CUDA writes 12.8 as 12080."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _nvrtc(cupy: Any) -> str:
    try:
        return "{}.{}".format(*cupy.cuda.nvrtc.getVersion())
    except Exception as error:  # the library is missing, or of another CUDA: what is compiled will say more
        return f"does not answer ({cell(error)})"


def _processor() -> str:
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores"


def checkout() -> Path | None:
    """The folder with tests/, examples/ and benchmarks/; None where minigrad was installed from a wheel."""
    root = Path(minigrad.__file__).resolve().parent.parent
    return root if (root / "tests" / "conftest.py").is_file() else None
