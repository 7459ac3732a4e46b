"""A stand-in for CuPy: as much of it as minigrad/gpu/cuda_runtime.py uses, over NumPy memory and the kernel emulator.

    with fake_cupy.installed(cards=2, peers=True) as machine:
        x = minigrad.Tensor([1.0], device="cuda:0")

    with fake_cupy.installed(cards=1, devices="0,0"):  # MINIGRAD_CUDA: cuda:0 and cuda:1 on one card

It is strict.  Work on a card that is not the current one, on the null stream, or with a pointer to another card's
memory is an error, and so are arguments that CuPy would pass in another way than meant.  Streams are checked by the
emulator's clocks (minigrad/cudasim/streams.py), pinned host memory too: no event is ever done before the host has
waited for it.  Memory belongs to the stream that was current when it was made: where it is freed while another stream
may be using it, of the same card or not, that is an error.  A cuBLAS handle serves one stream.

What it proves is that the calls of cuda_runtime.py fit each other.  That CuPy, CUDA and a card behave like this, it
cannot prove; tests/test_cuda.py compares the signatures with CuPy's where CuPy is installed, and that is all that is
known here.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import sys
import threading
import weakref
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np

from minigrad import device as device_named
from minigrad.cudasim import memory as sim_memory
from minigrad.cudasim.memory import SimArray
from minigrad.cudasim.runtime import SimRuntime
from minigrad.cudasim.streams import HOST, Access, bytes_in_use
from minigrad.cudasim.streams import Stream as Clocked
from minigrad.errors import KernelError
from minigrad.gpu import cuda
from minigrad.gpu.launching import _parameters
from minigrad.gpu.sources import Parameter

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
_sessions = itertools.count(1)
_numbers = itertools.count(0x5000)  # handles


class Machine:
    """The cards; `calls` lists what was copied and multiplied, `fault` is raised at the next synchronize."""

    def __init__(self, cards: int, peers: bool, memory: int):
        self.peers, self.total = peers, memory
        self.cards = [SimpleNamespace(memories=weakref.WeakSet()) for i in range(cards)]
        self.session = next(_sessions)
        self.streams: dict[int, Stream] = {}
        self.enabled: set[tuple[int, int]] = set()
        self.handles: dict[int, SimpleNamespace] = {}
        self.calls: list[tuple] = []
        self.modules: list[tuple[str, tuple[str, ...]]] = []
        self.fault: Exception | None = None
        self.local = threading.local()

    def in_use(self, card: int) -> int:
        return sum(bytes_in_use(s.clock.name) for s in list(self.streams.values()) if s.device_id == card)


machine: Machine = None  # type: ignore[assignment]  # while installed


@contextlib.contextmanager
def installed(cards: int = 2, peers: bool = True, memory: int = 1 << 34, devices: str | None = None):
    """`import cupy` gives the stand-in: a machine of so many cards, with so many bytes on each.

    devices: MINIGRAD_CUDA meanwhile; None: not set.  Garbage that was made meanwhile goes before the machine does.
    """
    global machine
    known = [device_named(f"cuda:{i}") for i in range(8)]
    saved = {name: sys.modules.get(name) for name in ("cupy", "cupy.cuda", "cupy.cuda.nccl")}
    machine, cupy = Machine(cards, peers, memory), _module()
    sys.modules.update({"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.nccl": cupy.cuda.nccl})
    del cupy.cuda.nccl  # as in CuPy's, where it has to be imported
    HOST.faults.clear()
    for device in known:
        device._runtime = None
    with mock.patch.dict(os.environ):
        os.environ.pop("MINIGRAD_CUDA", None)
        if devices is not None:
            os.environ["MINIGRAD_CUDA"] = devices
        cuda._listed.cache_clear()
        gc.freeze()  # what is there already, most of it pytest's, takes a third of a second to look through
        try:
            yield machine
            gc.collect()
            _end()
            HOST.raise_faults("pinned memory")
        finally:
            gc.unfreeze()
            _end()
            for device in known:
                device._runtime = None
            machine = None  # type: ignore[assignment]
            cuda._listed.cache_clear()
            for name, module in saved.items():
                del sys.modules[name]
                if module is not None:
                    sys.modules[name] = module


def _end() -> None:
    """The host waits for all streams: the runtimes end here, as they never do in a program."""
    for stream in list(machine.streams.values()):
        stream.clock.faults.clear()
        stream.clock.synchronize()


# ---------------------------------------------------------------- what is current


def _stack() -> list:
    """The cards this thread has entered, and the streams: (card, stream or None)."""
    if not hasattr(machine.local, "stack"):
        machine.local.stack = [(0, None)]
    return machine.local.stack


def _card() -> int:
    return _stack()[-1][0]


def _stream() -> Stream:
    """The current stream, which must have been made current on purpose."""
    card, stream = _stack()[-1]
    if stream is None:
        raise AssertionError(f"the null stream of card {card} is current")
    return stream


def get_current_stream(device_id=-1):
    assert 0 <= device_id < len(machine.cards)
    return next((stream for card, stream in reversed(_stack()) if card == device_id and stream is not None), None)


class Device:
    compute_capability = "90"

    def __init__(self, device=None):
        if not 0 <= device < len(machine.cards):
            raise CUDARuntimeError(101)
        self.id = device

    def __enter__(self):
        _stack().append((self.id, None))
        return self

    def __exit__(self, *exc):
        _stack().pop()


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        assert non_blocking and not null and not ptds
        self.device_id, self.ptr = _card(), next(_numbers)
        self.clock = Clocked(f"fake card {self.device_id}, stream {len(machine.streams)} ({machine.session})")
        self.sim = SimRuntime(self.device_id)
        self.sim.stream = self.clock
        machine.streams[self.ptr] = self

    def __enter__(self):
        assert _card() == self.device_id, f"a stream of card {self.device_id}, while card {_card()} is current"
        _stack().append((self.device_id, self))
        return self

    def __exit__(self, *exc):
        _stack().pop()

    def record(self, event=None):
        assert _card() == self.device_id == event.device_id, "card, stream and event must belong together"
        event.time = self.clock.record()
        return event

    def wait_event(self, event):
        assert _card() == self.device_id and event.time is not None
        self.clock.wait(event.time)

    def synchronize(self):
        assert _stream() is self
        _raise_fault()
        self.clock.synchronize()


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.device_id, self.time, self.timing = _card(), None, not disable_timing

    @property
    def done(self):
        return all(HOST.clock.get(number, 0) >= step for number, step in self.time.items())

    def synchronize(self):
        _raise_fault()
        HOST.wait(self.time)


def get_elapsed_time(start_event, end_event):
    assert start_event.timing and end_event.timing and end_event.done
    return 1.5


def _raise_fault():
    if machine.fault is not None:
        raise machine.fault


# ---------------------------------------------------------------- memory


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"CUDA error {status}")


class CUDADriverError(CUDARuntimeError):
    pass


class CUBLASError(CUDARuntimeError):
    """Not under a name of SURFACE: CuPy has it in a module that needs cuBLAS to be imported."""


class NVRTCError(CUDARuntimeError):
    """As CUBLASError."""


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        super().__init__(f"Out of memory allocating {size} bytes (allocated so far: {total} bytes).")


class Memory(sim_memory.Memory):
    """Memory from CuPy's pool: it belongs to the stream that was current, and goes back to that stream's arena."""

    def __init__(self, nbytes):
        self.card = _card()
        if machine.in_use(self.card) + nbytes > machine.total:
            raise OutOfMemoryError(nbytes, machine.in_use(self.card))
        super().__init__(_stream().clock, nbytes)
        machine.cards[self.card].memories.add(self)


class ndarray(SimArray):  # noqa: N801 (CuPy's name)
    __slots__ = ()

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        assert memptr is None and strides is None and order == "C"
        memory = Memory(int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize)
        super().__init__(memory.bytes.view(dtype).reshape(shape), memory)

    def _view(self, host):
        view = object.__new__(type(self))  # a subclass keeps its class
        SimArray.__init__(view, host, self.memory)
        return view

    @property
    def data(self):
        return SimpleNamespace(ptr=super().data.ptr, mem=self.memory, device_id=self.memory.card)

    def get(self, stream=None, order="C", out=None, blocking=True):
        raise AssertionError("cuda_runtime.py copies by memcpyAsync")


def ascontiguousarray(a, dtype=None):
    assert dtype is None and a.memory.card == _card()
    y = ndarray(a.shape, a.dtype)
    _stream().clock.touch("ascontiguousarray", [a.memory.access], [y.memory.access])
    y.host[...] = a.host
    return y


class Pinned(bytearray):
    """Pinned host memory: NumPy sees it through the buffer protocol, as np.frombuffer(pinned)."""

    def __init__(self, nbytes):
        super().__init__(b"\xff" * nbytes)
        self.ptr = ctypes.addressof(ctypes.c_char.from_buffer(self))
        self.access = Access("pinned host memory")
        _pinned.append(weakref.ref(self, _pinned.remove))

    def __del__(self):
        HOST.freed(self.access)


_pinned: list[weakref.ref] = []


def alloc_pinned_memory(size):
    return Pinned(size)


class Pool:
    def used_bytes(self):
        return machine.in_use(_card())

    def total_bytes(self):
        return machine.in_use(_card()) + 5_000_000


def get_default_memory_pool():
    return Pool()


def set_allocator(allocator=None):
    machine.calls.append(("allocator", allocator))


def mem_get_info():
    return machine.total - Pool().total_bytes(), machine.total


def get_device_properties(device):
    numbers = {"totalGlobalMem": 80 * 10**9, "major": 9, "minor": 0, "multiProcessorCount": 132}
    return {"name": b"Stand-in 9000", **numbers}


def _memory_at(card: int, address: int, nbytes: int) -> Memory:
    for memory in list(machine.cards[card].memories):
        start = memory.bytes.ctypes.data
        if start <= address and address + nbytes <= start + memory.nbytes:
            return memory
    raise AssertionError(f"{nbytes} bytes at {address:#x} are not in one array of card {card}")


def _mark(memory: Memory, address: int, nbytes: int) -> None:
    if memory.written is not None:
        offset = address - memory.bytes.ctypes.data
        memory.written[offset : offset + nbytes] = 1


def _ours(stream: int) -> Stream:
    found = machine.streams[stream]
    assert found is _stream(), "a copy on a stream that is not current"
    return found


def memcpy_async(dst, src, size, kind, stream):
    here = _ours(stream)
    assert size > 0
    if kind == DEVICE_TO_DEVICE:
        _copy(here, "memcpyAsync", _memory_at(_card(), dst, size), dst, _memory_at(_card(), src, size), src, size)
        machine.calls.append(("on card", _card(), size))
        return
    assert kind in (HOST_TO_DEVICE, DEVICE_TO_HOST)
    host, card = (src, dst) if kind == HOST_TO_DEVICE else (dst, src)
    memory = _memory_at(_card(), card, size)
    pinned = [p for p in (ref() for ref in _pinned) if p is not None and p.ptr == host]
    assert pinned or kind == DEVICE_TO_HOST, "a copy from pageable memory is not asynchronous"
    assert not pinned or len(pinned[0]) >= size
    ends = [memory.access], [p.access for p in pinned]
    here.clock.touch("memcpyAsync", *(ends[::-1] if kind == HOST_TO_DEVICE else ends))
    ctypes.memmove(dst, src, size)
    if kind == HOST_TO_DEVICE:
        _mark(memory, dst, size)
    machine.calls.append(("to card" if kind == HOST_TO_DEVICE else "to host", _card(), size))


def memcpy_peer_async(dst, dst_device, src, src_device, size, stream):
    here = _ours(stream)
    assert {(dst_device, src_device), (src_device, dst_device)} <= machine.enabled
    to, source = _memory_at(dst_device, dst, size), _memory_at(src_device, src, size)
    _copy(here, "memcpyPeerAsync", to, dst, source, src, size)
    machine.calls.append(("peer", src_device, dst_device, size))


def _copy(stream: Stream, what: str, to: Memory, dst: int, source: Memory, src: int, size: int) -> None:
    stream.clock.touch(what, [source.access], [to.access])
    ctypes.memmove(dst, src, size)
    _mark(to, dst, size)


def memset_async(ptr, value, size, stream):
    memory = _memory_at(_card(), ptr, size)
    _ours(stream).clock.touch("memsetAsync", [], [memory.access])
    ctypes.memset(ptr, value, size)
    _mark(memory, ptr, size)


def device_can_access_peer(device, peer_device):
    assert device != peer_device
    return int(machine.peers)


def device_enable_peer_access(peer_device):
    pair = _card(), peer_device
    if pair in machine.enabled:
        raise CUDARuntimeError(704)
    assert machine.peers
    machine.enabled.add(pair)


# ---------------------------------------------------------------- kernels


class CompileException(Exception):  # noqa: N818 (CuPy's name)
    def __init__(self, msg, source, name, options, backend="nvrtc"):
        super().__init__(msg)


class RawModule:
    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc"):
        assert isinstance(options, tuple) and options[0] == "--std=c++17" and backend == "nvrtc"
        self.code, self.options = code, options
        machine.modules.append((code, options))

    def get_function(self, name):
        defines = tuple(option for option in self.options if option.startswith("-D"))
        assert len(defines) == len(self.options) - 1
        try:
            function = _stream().sim.function(self.code, defines, name)
        except KernelError as error:
            raise CompileException(str(error), self.code, name, self.options) from None
        return RawKernel(function, [p.many for p in _parameters(self.code, defines)[name]], _card())


class RawKernel:
    def __init__(self, function, many, card):
        self.function, self.name, self.many, self.card = function, function.name, many, card

    def __call__(self, grid, block, args, *, shared_mem=0):
        stream = _stream()
        assert _card() == self.card, "a function that was compiled for another card"
        assert isinstance(args, tuple) and len(args) == len(self.function.parameters)
        args = [_arrays_at(value, many) if many else value for value, many in zip(args, self.many)]
        parameters = [_checked(i, text, value) for i, (text, value) in enumerate(zip(self.function.parameters, args))]
        stream.sim.launch(self.function, parameters, grid, block, args, shared_mem)


def _arrays_at(value, many: int) -> list[SimArray]:
    """The arrays whose addresses a kernel finds in a parameter `Arrays<...>`: each to the end of its memory."""
    assert type(value) is np.void and value.nbytes == 8 * many
    addresses = [address for address in np.frombuffer(value.tobytes(), np.uint64).tolist() if address]
    memories = [_memory_at(_card(), address, 1) for address in addresses]
    return [SimArray(m.bytes[address - m.bytes.ctypes.data :], m) for m, address in zip(memories, addresses)]


def _checked(i: int, text: str, value) -> Parameter:
    """The parameter, once the value is of exactly its type: CuPy would pass the bits of another type as they are."""
    const, name = text.startswith("const "), f"argument{i}"
    kind = text.removeprefix("const ")
    if kind.endswith("*"):
        assert isinstance(value, ndarray) and value.dtype == kind[:-1], f"{name}: {text}, got {value!r}"
        assert value.memory.card == _card(), f"{name} is on card {value.memory.card}, the kernel on {_card()}"
        return Parameter(name, value.dtype, True, const)
    if type(value) is list:
        return Parameter(name, np.dtype(np.uint8), True, False, int(kind[1:]) // 8)
    if kind.startswith("V"):
        assert type(value) is np.void and value.dtype.fields and value.nbytes == int(kind[1:])
        return Parameter(name, value.dtype, False, False)
    assert isinstance(value, np.generic) and value.dtype == kind, f"{name}: {text}, got {type(value)} {value!r}"
    return Parameter(name, value.dtype, False, False)


# ---------------------------------------------------------------- cuBLAS


def create():
    number = next(_numbers)
    machine.handles[number] = SimpleNamespace(card=_card(), math=0, stream=None)
    return number


def _rounded(values: np.ndarray) -> np.ndarray:
    """As TF32 has them: 10 bits of mantissa."""
    return ((values.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def _gemm(dtype):
    def gemm(handle, transa, transb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):  # noqa: N803 (CuPy's names)
        state = machine.handles[handle]
        assert state.card == _card() and state.stream in (None, _stream()), "a handle serves one stream of its card"
        state.stream = _stream()  # CuPy gives it the current one at every call
        sizes = [
            (A, lda, (k, m) if transa else (m, k)),
            (B, ldb, (n, k) if transb else (k, n)),
            (C, ldc, (m, n)),
        ]
        matrices, memories = [], []
        for address, leading, (rows, columns) in sizes:
            assert leading >= max(1, rows), "leading dimension below the number of rows"
            memory = _memory_at(_card(), address, ((columns - 1) * leading + rows) * dtype.itemsize)
            offset = address - memory.bytes.ctypes.data
            strides = dtype.itemsize, leading * dtype.itemsize
            matrices.append(np.ndarray((rows, columns), dtype, memory.bytes, offset, strides))
            memories.append(memory)
        _stream().clock.touch("gemm", [memory.access for memory in memories[:2]], [memories[2].access])
        a, b, c = matrices
        a, b = (a.T if transa else a), (b.T if transb else b)
        if state.math == 3 and dtype == np.float32:
            a, b = _rounded(np.ascontiguousarray(a)), _rounded(np.ascontiguousarray(b))
        one, zero = (np.ctypeslib.as_array(ctypes.cast(p, _POINTERS[dtype.char]), (1,))[0] for p in (alpha, beta))
        c[...] = one * (a @ b) + (zero * c if zero else 0)
        _mark(memories[2], C, m * n * dtype.itemsize)
        machine.calls.append(("gemm", dtype.name, m, n, k, state.math))

    return gemm


_POINTERS = {"f": ctypes.POINTER(ctypes.c_float), "d": ctypes.POINTER(ctypes.c_double)}
sgemm, dgemm = _gemm(np.dtype(np.float32)), _gemm(np.dtype(np.float64))


def set_math_mode(handle, mode):
    machine.handles[handle].math = mode


# ---------------------------------------------------------------- NCCL


class Ring:
    """The cards of one NCCL communicator, each fed by a thread that stands for a process."""

    def __init__(self, ndev: int):
        self.ndev, self.barrier, self.sent = ndev, threading.Barrier(ndev, timeout=60), {}
        self.cards: dict[int, int] = {}


_rings: dict[bytes, Ring] = {}
_grouped = threading.local()


class NcclError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"NCCL_ERROR_{status}")


def get_unique_id():
    return next(_numbers).to_bytes(128, "little")


def group_start():
    assert getattr(_grouped, "calls", None) is None
    _grouped.calls = []


def group_end():
    """All sends, and then all receives: as long as they wait for each other, none may come alone."""
    calls, _grouped.calls = _grouped.calls, None
    calls[0][0]._together(calls)


class NcclCommunicator:
    def __init__(self, ndev, commId, rank, config=None):  # noqa: N803 (CuPy's names)
        assert type(commId) is bytes and len(commId) == 128 and 0 <= rank < ndev
        self.ring, self.rank, self.card = _rings.setdefault(commId, Ring(ndev)), rank, _card()
        self.ring.cards[rank] = self.card
        self.ring.barrier.wait()
        assert len(set(self.ring.cards.values())) == ndev, "Duplicate GPU detected"

    def send(self, sendbuf, count, datatype, peer, stream):
        _grouped.calls.append((self, "send", sendbuf, count, datatype, peer, stream))

    def recv(self, recvbuf, count, datatype, peer, stream):
        _grouped.calls.append((self, "recv", recvbuf, count, datatype, peer, stream))

    def _memory(self, kind, address, count, datatype, stream):
        assert _card() == self.card and _ours(stream).device_id == self.card
        _raise_fault()
        nbytes = count * {7: 4, 8: 8}[datatype]
        memory = _memory_at(self.card, address, nbytes)
        reads, writes = ([memory.access], []) if kind == "send" else ([], [memory.access])
        _stream().clock.touch(f"nccl {kind}", reads, writes)
        return memory, nbytes

    def _together(self, calls):
        for _, kind, address, count, datatype, peer, stream in calls:
            if kind == "send":
                _, nbytes = self._memory(kind, address, count, datatype, stream)
                self.ring.sent[self.rank, peer] = ctypes.string_at(address, nbytes)
        self.ring.barrier.wait()
        for _, kind, address, count, datatype, peer, stream in calls:
            if kind == "recv":
                memory, nbytes = self._memory(kind, address, count, datatype, stream)
                content = self.ring.sent.pop((peer, self.rank))
                assert len(content) == nbytes
                ctypes.memmove(address, content, nbytes)
                _mark(memory, address, nbytes)
        self.ring.barrier.wait()
        machine.calls.append(("nccl", self.card, len(calls)))

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):  # noqa: N802
        step = count * {7: 4, 8: 8}[datatype]
        sends = [(self, "send", sendbuf, count, datatype, peer, stream) for peer in range(self.ring.ndev)]
        self._together(
            sends + [(self, "recv", recvbuf + r * step, count, datatype, r, stream) for r in range(self.ring.ndev)]
        )


# ---------------------------------------------------------------- put together

# What the stand-in offers, by CuPy's names; tests/test_cuda.py compares the parameters with CuPy's.
SURFACE = {
    "ndarray": ndarray,
    "RawModule": RawModule,
    "ascontiguousarray": ascontiguousarray,
    "get_default_memory_pool": get_default_memory_pool,
    "cuda.Device": Device,
    "cuda.Stream": Stream,
    "cuda.Event": Event,
    "cuda.alloc_pinned_memory": alloc_pinned_memory,
    "cuda.get_current_stream": get_current_stream,
    "cuda.get_elapsed_time": get_elapsed_time,
    "cuda.set_allocator": set_allocator,
    "cuda.compiler.CompileException": CompileException,
    "cuda.driver.CUDADriverError": CUDADriverError,
    "cuda.memory.OutOfMemoryError": OutOfMemoryError,
    "cuda.nccl.NcclCommunicator": NcclCommunicator,
    "cuda.nccl.get_unique_id": get_unique_id,
    "cuda.nccl.groupStart": group_start,
    "cuda.nccl.groupEnd": group_end,
    "cuda.nvrtc.getVersion": lambda: (12, 9),
    "cuda.runtime.CUDARuntimeError": CUDARuntimeError,
    "cuda.runtime.getDevice": lambda: _card(),
    "cuda.runtime.getDeviceCount": lambda: len(machine.cards),
    "cuda.runtime.getDeviceProperties": get_device_properties,
    "cuda.runtime.deviceGetPCIBusId": lambda device: f"0000:{device:02x}:00.0",
    "cuda.runtime.driverGetVersion": lambda: 13000,
    "cuda.runtime.runtimeGetVersion": lambda: 12080,
    "cuda.runtime.memGetInfo": mem_get_info,
    "cuda.runtime.memcpyAsync": memcpy_async,
    "cuda.runtime.memcpyPeerAsync": memcpy_peer_async,
    "cuda.runtime.memsetAsync": memset_async,
    "cuda.runtime.deviceCanAccessPeer": device_can_access_peer,
    "cuda.runtime.deviceEnablePeerAccess": device_enable_peer_access,
    "cuda.runtime.memcpyHostToDevice": HOST_TO_DEVICE,
    "cuda.runtime.memcpyDeviceToHost": DEVICE_TO_HOST,
    "cuda.runtime.memcpyDeviceToDevice": DEVICE_TO_DEVICE,
    "cuda.cublas.create": create,
    "cuda.cublas.sgemm": sgemm,
    "cuda.cublas.dgemm": dgemm,
    "cuda.cublas.setMathMode": set_math_mode,
    "cuda.cublas.CUBLAS_OP_N": 0,
    "cuda.cublas.CUBLAS_OP_T": 1,
    "cuda.cublas.CUBLAS_DEFAULT_MATH": 0,
}


def _module() -> ModuleType:
    cupy = ModuleType("cupy")
    cupy.__version__ = "13.0"
    for path, value in SURFACE.items():
        *folders, name = path.split(".")
        module = cupy
        for folder in folders:
            if not hasattr(module, folder):
                setattr(module, folder, ModuleType(folder))
            module = getattr(module, folder)
        setattr(module, name, value)
    return cupy
