"""Sums from card to card by NCCL, without the host: what `Comm.add_up` does, with the same bits.

Each card of a process has a communicator with the cards of that number of all others.  NCCL carries the pieces, and
minigrad's own kernel adds them, in the order of the ranks: NCCL's own sums have an order that depends on the wiring.
All is given to a stream of its own, beside which the card goes on with backward.

Not yet run on several cards: the calls are CuPy's (tests compare them), and they are executed on the emulator.

Source: NCCL's documentation, "Point-to-point communication", all to all; CuPy's cupy.cuda.nccl.
"""

from __future__ import annotations

import importlib
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..device import Array, Device
from ..errors import DeviceError, printable
from ..gpu.cuda import Cuda
from ..gpu.cuda_beside import beside, follow
from .comm import Comm

TYPES = {np.dtype("float32"): 7, np.dtype("float64"): 8}  # ncclFloat32, ncclFloat64
PIP = "pip install nvidia-nccl-cu13 (or -cu12, as CuPy is)"


def connect(comm: Comm, devices: list[Device]) -> dict[Device, Nccl]:
    """NCCL for each of these, the devices that have parameters; none where sums go by the host.

    That is where MINIGRAD_BACKEND is mpi, and where it is not set and NCCL cannot be had by all: DeviceError where it
    is nccl then.  Every process calls it.
    """
    if comm.size == 1 or comm.backend == "mpi":
        return {}
    reasons = comm.gather(_why_not(devices))
    reason = next((f"rank {rank}: {why}" for rank, why in enumerate(reasons) if why), "") or _shared(comm, devices)
    if not reason:
        return {device: Nccl(comm, device) for device in devices if isinstance(device, Cuda)}
    if comm.backend == "nccl":
        raise DeviceError(f"MINIGRAD_BACKEND=nccl: {reason}; MINIGRAD_BACKEND=mpi does without NCCL, by the host")
    return {}


def _why_not(devices: list[Device]) -> str:
    """What keeps this process from NCCL."""
    other = next((device for device in devices if not isinstance(device, Cuda)), None)
    if other is not None:
        return f"parameters are on {other}, and NCCL knows cards alone"
    devices[0].xp  # noqa: B018 (its error says more than that of the import)
    return "" if hasattr(_library(), "NcclCommunicator") else f"CuPy finds no NCCL: {PIP}"


def _library() -> Any:
    """CuPy's module, which is there without the library, too, and empty then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("cupy.cuda.nccl")


def _shared(comm: Comm, devices: list[Device]) -> str:
    """NCCL wants a card for each rank of a communicator."""
    for i in range(max(comm.gather(len(devices)))):
        device = devices[i] if i < len(devices) else None
        card = device and device.xp.cuda.runtime.deviceGetPCIBusId(device.card)
        there = comm.gather((socket.gethostname(), card))
        for rank, place in enumerate(there):
            other = there.index(place)
            if card is None or None in place:
                return "the processes have different numbers of devices"
            if other != rank:
                return f"ranks {other} and {rank} have the same card, {printable(place[1])} of {printable(place[0])}"
    return ""


class Nccl:
    """One card of each process; `device` is this one's."""

    def __init__(self, comm: Comm, device: Cuda):
        self.comm, self.device, self.lane = comm, device, beside(device)
        with self._calling():
            self.nccl = _library()
            number = comm.broadcast(self.nccl.get_unique_id() if comm.rank == 0 else None)
            with comm.waiting("sum"), self.lane.runtime.here():
                self.communicator = self.nccl.NcclCommunicator(comm.size, number, comm.rank)

    def add_up(self, flat: Array) -> None:
        """`flat`, an array of the device (a multiple of `size` numbers), becomes the sum over the processes."""
        size, lane = self.comm.size, self.lane
        count, kind = flat.size // size, TYPES[flat.dtype]
        with self.comm.waiting("sum"), self._calling(), lane.runtime.here():
            stream = lane.runtime.stream.ptr
            follow(lane, self.device)
            parts = lane.empty((size, count), flat.dtype)
            self.nccl.groupStart()
            for rank, piece in enumerate(flat.reshape(size, count)):
                self.communicator.send(piece.data.ptr, count, kind, rank, stream)
                self.communicator.recv(parts[rank].data.ptr, count, kind, rank, stream)
            self.nccl.groupEnd()
            for rank in range(1, size):
                lane.add_into(parts[0], parts[rank])
            self.communicator.allGather(parts[0].data.ptr, flat.data.ptr, count, kind, stream)
            lane.synchronize()
        self.comm.bytes_sent += 2 * (size - 1) * count * flat.dtype.itemsize

    @contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if type(error).__name__ != "NcclError":  # a class that CuPy has only where NCCL is
                raise
            raise DeviceError(
                f"NCCL on {self.device}: {error}: NCCL_DEBUG=INFO tells more; MINIGRAD_BACKEND=mpi does without"
            ) from error
