"""What manages a graphics card: memory, streams, copies and launches, through CuPy (14 or newer).

    runtime = CudaRuntime(0, card=0)
    x = runtime.from_host(values)
    runtime.launch(runtime.function(source, options, "relu_forward"), ..., args, 0)

Each device has one stream, and all its work goes there, in order; the host waits for none of it but in `to_host` and
`synchronize`.  CuPy keeps, for each thread, a current card and for each card a current stream: what is done within
`here` is done on this card and this stream, whatever the thread; an op enters once for all that it does.  The stream
does not wait for CuPy's null stream: programs that call CuPy on an array of minigrad must do so `with runtime.stream`,
and faces of an op are there already.

Memory comes from CuPy's pool.  It hands a freed array's memory out again at once, to the stream that it was allocated
on: what that stream does next comes after all that it did with it before.  Other streams are not waited for.  So where
a second device reads an array of this one, this one's stream is made to wait until that is done (`copy_from`).

Two devices may be on one card (MINIGRAD_CUDA, cuda.py).  They share its memory and its multiprocessors, and CuPy's
modules, which are loaded once per card.  Streams, arrays and cuBLAS handles are their own, and no kernel of one may
use an array of the other: on one card nothing would fail, but no event says which of the two comes first.  So each
runtime has a class of its own for its arrays, by which it knows them; views and what CuPy computes keep it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError, KernelError, MinigradError, OutOfMemoryError
from .cublas import FACTORS, as_columns
from .cuda_current import Current

Array = Any  # cupy.ndarray

OPTIONS = ("--std=c++17",)  # CuPy adds -ftz=true, -arch=... and --device-as-default-execution-space
MOST_SHARED = 48 << 10  # bytes of dynamic shared memory; for more, CUDA wants an attribute of the kernel to be set

# Numbers of CUDA that CuPy has no names for.
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
TOO_OLD = (35, 200, 209, 222)  # of the driver: cudaErrorInsufficientDriver, ...; of a kernel: invalid image, none, PTX
FATAL = (214, 700, 702, *range(710, 720))  # cudaErrorIllegalAddress and its like: of this process, not of one call
CUBLAS_OUT_OF_MEMORY = 3  # CUBLAS_STATUS_ALLOC_FAILED
PEER_ALREADY_ENABLED = 704  # cudaErrorPeerAccessAlreadyEnabled
TF32_MATH = 3  # CUBLAS_TF32_TENSOR_OP_MATH


class CudaRuntime:
    """cuda:<index>, on that card.

    DeviceError where CuPy or the driver cannot use it; cupy_for, called before, says what is missing.
    """

    def __init__(self, index: int, card: int):
        import cupy

        self.cupy, self.cuda = cupy, cupy.cuda
        self.index, self.card = index, card
        self.name = f"cuda:{index}" if index == card else f"cuda:{index} (card {card})"
        self.array_type = type(f"array of {self.name}", (cupy.ndarray,), {})
        self.here = Current(self.cuda, card, contextlib.nullcontext(), self._translated)
        with self._here("first use"):
            self.has_matrix_units = int(self.cuda.Device(card).compute_capability) >= 80
            self.stream = self.cuda.Stream(non_blocking=True)  # does not wait for the null stream, nor it for this
        self.here = Current(self.cuda, card, self.stream, self._translated)
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._functions: dict[tuple[str, tuple[str, ...], str], Any] = {}
        self._blas: Any = None  # the handle of cuBLAS, once there was a product
        self._peers: dict[int, bool] = {card: True}
        self._in_flight: list[tuple[Any, Any]] = []  # pinned memory that a copy reads, and the event of its end
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def _here(self, what: str | Callable[[], str]) -> Iterator[None]:
        """`here`, and CuPy's errors become minigrad's."""
        try:
            with self.here():
                yield
        except MinigradError:
            raise
        except Exception as error:
            raise self._translated(what if isinstance(what, str) else what(), error) from error

    def _translated(self, what: str, error: Exception) -> MinigradError:
        """The error of minigrad for one that CuPy has raised; its message says what to do."""
        # By name: the modules of cuBLAS' and NVRTC's errors cannot be imported where the library is missing.
        kind, status, where = type(error).__name__, getattr(error, "status", None), f"{what} on {self.name}"
        if kind == "CompileException":
            return KernelError(f"{where}: does not compile:\n{error}")
        if isinstance(error, MemoryError) or (kind, status) == ("CUBLASError", CUBLAS_OUT_OF_MEMORY):
            return self._out_of_memory(what)
        if kind == "CUBLASError":
            return KernelError(
                f"{where}: cuBLAS: {error}: {self._versions()}.  Install both with pip install '{self._extra()}', or "
                "do without: minigrad.set_gemm('minigrad')"
            )
        if kind == "NVRTCError":
            return KernelError(f"{where}: NVRTC: {error}: {self._versions()}: pip install '{self._extra()}'")
        if isinstance(error, OSError) and error.errno is not None:  # of CuPy's cache of compiled kernels: ~/.cupy
            return DeviceError(f"{where}: {error}: set CUPY_CACHE_DIR to a folder that can be written to")
        if status is None and isinstance(error, (ImportError, OSError, RuntimeError)):
            return DeviceError(
                f"{where}: {kind}: {error}: {self._versions()}.  Where a library of CUDA or its headers are missing: "
                f"pip install '{self._extra()}', which brings cuBLAS, NVRTC and the headers"
            )
        if status is None:
            return KernelError(f"{where}: {kind}: {error}")
        if status == OUT_OF_MEMORY:
            return self._out_of_memory(what)
        if status in TOO_OLD:
            return DeviceError(
                f"{where}: {error}: {self._versions()}.  The driver must be as new as both: install a newer driver, or "
                "pip install 'minigrad[cuda12]' for an older one; beside that, pip uninstall nvidia-cuda-nvrtc"
            )
        lost = ", and this process cannot use the card any more" if status in FATAL else ""
        return KernelError(
            f"{where}: {error}.  CUDA reports a kernel's fault at some later call{lost}: run the same on cudasim:0, "
            "MINIGRAD_CUDASIM_MODE=check, to find it"
        )

    def _out_of_memory(self, what: str) -> OutOfMemoryError:
        def numbers() -> str:
            with self.cuda.Device(self.card):
                free, total = self.cuda.runtime.memGetInfo()
                pool = self.cupy.get_default_memory_pool()
                used, held = pool.used_bytes(), pool.total_bytes()
            return (
                f"{used / 1e6:.1f} MB in use, {(held - used) / 1e6:.1f} MB free in CuPy's pool in pieces that are too "
                f"small, {free / 1e6:.1f} of {total / 1e6:.1f} MB free on the card"
            )

        return OutOfMemoryError(
            f"{self.name}: out of memory: {what}; {_said(numbers)}: use a smaller batch, or end other programs that "
            "use this card"
        )

    def _versions(self) -> str:
        """The versions that must fit each other, for messages."""
        runtime = self.cuda.runtime
        cupy = _said(lambda: _dotted(runtime.runtimeGetVersion()))
        nvrtc = _said(lambda: "{}.{}".format(*self.cuda.nvrtc.getVersion()))
        driver = _said(lambda: _dotted(runtime.driverGetVersion()))
        return f"CuPy is for CUDA {cupy}, it compiles with NVRTC {nvrtc}, the driver allows CUDA {driver}"

    def _extra(self) -> str:
        """The extra of setup.py that fits the CuPy that is installed."""
        return f"minigrad[cuda{self.cuda.runtime.runtimeGetVersion() // 1000}]"

    def _event(self) -> Any:
        """A mark after all that the stream was given so far; to be called within `_here`."""
        return self.stream.record(self.cuda.Event(disable_timing=True))

    # ---------------------------------------------------------------- memory

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A new C-contiguous array, contents undefined; OutOfMemoryError."""
        try:
            with self.here():
                return self.array_type(shape, dtype)
        except MinigradError:
            raise
        except Exception as error:
            nbytes = math.prod(shape) * dtype.itemsize
            raise self._translated(f"{nbytes / 1e6:.1f} MB wanted for {tuple(shape)} {dtype}", error) from error

    def from_host(self, values: np.ndarray) -> Array:
        """A copy in device memory, in the memory order of `values`, which may be changed as soon as this returns."""
        axes = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        array = self._empty_in_order(values.shape, values.dtype, axes)
        if values.nbytes:
            with self._here("copy from host"):
                pinned = self.cuda.alloc_pinned_memory(values.nbytes)
                staged = np.frombuffer(pinned, values.dtype, values.size)
                staged.reshape([values.shape[axis] for axis in axes])[...] = values.transpose(axes)
                self._from_pinned(array, pinned)
        return array

    def to_host(self, x: Array) -> np.ndarray:
        """A copy for the host, memory order kept where x has no gaps; waits for the stream."""
        self._check_owned("copy to host", x)
        x, axes = self._without_gaps(x)
        values = np.empty([x.shape[axis] for axis in axes], x.dtype)
        with self._here("copy to host"):
            if x.nbytes:
                kind = self.cuda.runtime.memcpyDeviceToHost
                self.cuda.runtime.memcpyAsync(values.ctypes.data, x.data.ptr, x.nbytes, kind, self.stream.ptr)
            self.stream.synchronize()
        return values.transpose(_inverse(axes))

    def copy_from(self, other: CudaRuntime, x: Array) -> Array:
        """x, an array of another device, here: after all that `other` was given, before all it is given next."""
        other._check_owned(f"copy to {self.name}", x)
        x, axes = other._without_gaps(x)
        y = self._empty_in_order(x.shape, x.dtype, axes)
        if x.nbytes == 0:
            return y
        if not self._reaches(other):
            self._copy_by_host(other, x, y)
            return y
        with other._here(f"copy to {self.name}"):
            written = other._event()
        with self._here(f"copy from {other.name}"):
            self.stream.wait_event(written)
            runtime, (to, source) = self.cuda.runtime, (y.data.ptr, x.data.ptr)
            if self.card == other.card:
                runtime.memcpyAsync(to, source, x.nbytes, runtime.memcpyDeviceToDevice, self.stream.ptr)
            else:
                runtime.memcpyPeerAsync(to, self.card, source, other.card, x.nbytes, self.stream.ptr)
            read = self._event()
        with other._here(f"copy to {self.name}"):
            other.stream.wait_event(read)  # or x's memory might be handed out again while it is being read
        return y

    def _copy_by_host(self, other: CudaRuntime, x: Array, y: Array) -> None:
        with other._here(f"copy to {self.name}"):
            pinned = self.cuda.alloc_pinned_memory(x.nbytes)
            kind = self.cuda.runtime.memcpyDeviceToHost
            self.cuda.runtime.memcpyAsync(pinned.ptr, x.data.ptr, x.nbytes, kind, other.stream.ptr)
            staged = other._event()
        with self._here(f"copy from {other.name}"):
            self.stream.wait_event(staged)
            self._from_pinned(y, pinned)

    def _from_pinned(self, array: Array, pinned: Any) -> None:
        """Fill the array from pinned host memory, which is kept until that is done."""
        kind = self.cuda.runtime.memcpyHostToDevice
        self.cuda.runtime.memcpyAsync(array.data.ptr, pinned.ptr, array.nbytes, kind, self.stream.ptr)
        done = self._event()
        with self._lock:
            self._in_flight = [(event, memory) for event, memory in self._in_flight if not event.done]
            self._in_flight.append((done, pinned))

    def _empty_in_order(self, shape: Sequence[int], dtype: np.dtype[Any], axes: Sequence[int]) -> Array:
        """A new array whose axes lie in memory in this order, outermost first."""
        return self.empty(tuple(shape[axis] for axis in axes), dtype).transpose(_inverse(axes))

    def _without_gaps(self, x: Array) -> tuple[Array, list[int]]:
        """x, or a contiguous copy where x does not fill a piece of memory; and its axes, outermost first."""
        axes = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
        step = x.itemsize
        for axis in reversed(axes):
            if x.shape[axis] > 1 and x.strides[axis] != step:
                with self._here(f"contiguous copy of {x.shape} {x.dtype}"):
                    return self.cupy.ascontiguousarray(x), list(range(x.ndim))
            step *= x.shape[axis]
        return x, axes

    def _reaches(self, other: CudaRuntime) -> bool:
        """Whether the two cards copy to each other without the host; that is set up at the first call."""
        with self._lock, self._here(f"first copy from {other.name}"):
            if other.card not in self._peers:
                pairs = (self.card, other.card), (other.card, self.card)
                reaches = all(self.cuda.runtime.deviceCanAccessPeer(*pair) for pair in pairs)
                for here, there in pairs if reaches else ():
                    with self.cuda.Device(here):
                        self._enable_peer(there)
                self._peers[other.card] = reaches
            return self._peers[other.card]

    def _enable_peer(self, there: int) -> None:
        try:
            self.cuda.runtime.deviceEnablePeerAccess(there)
        except self.cuda.runtime.CUDARuntimeError as error:
            if error.status != PEER_ALREADY_ENABLED:  # by CuPy itself, or by the other card's runtime
                raise

    def owns(self, array: Any) -> bool:
        """Whether it is an array of this device; those of others, also on the same card, and CuPy's own are not."""
        return type(array) is self.array_type

    def _check_owned(self, what: str, *arrays: Any) -> None:
        for array in arrays:
            if not self.owns(array):
                raise KernelError(f"{what}: must be an array of {self.name}, got {type(array).__name__} {array.shape}")

    def synchronize(self) -> None:
        """Wait until the stream has done all it was given; KernelError if it could not."""
        with self._here("synchronize"):
            self.stream.synchronize()

    # ---------------------------------------------------------------- kernels

    def function(self, source: str, options: tuple[str, ...], name: str) -> Any:
        """The compiled entry point, the same object at every call; KernelError with the compiler's log."""
        found = self._functions.get((source, options, name))  # safe without the lock, which every launch would take
        if found is not None:
            return found
        with self._lock, self._here(f"kernel {name} ({' '.join(options)})"):
            module = self._modules.get((source, options))
            if module is None:
                module = self.cupy.RawModule(code=source, options=(*OPTIONS, *options), backend="nvrtc")
                self._modules[source, options] = module
            return self._functions.setdefault((source, options, name), module.get_function(name))

    def table(self, arrays: Sequence[Array], many: int) -> np.void:
        """What a parameter `Arrays<...>` takes by value: the addresses of these arrays, with room for so many."""
        return np.void(np.array([*(x.data.ptr for x in arrays), *(many - len(arrays)) * [0]], np.uint64).tobytes())

    def launch(
        self,
        function: Any,
        parameters: Sequence[Any],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared_mem: int,
    ) -> None:
        """Run a kernel on the stream.  args: arrays of this card and NumPy scalars, structs and tables too."""
        if shared_mem > MOST_SHARED:
            raise KernelError(
                f"launch of {function.name} on {self.name}: {shared_mem} bytes of dynamic shared memory, at most "
                f"{MOST_SHARED} can be had: use smaller tiles"
            )
        try:
            with self.here():
                function(grid, block, tuple(args), shared_mem=shared_mem)
        except MinigradError:
            raise
        except Exception as error:
            raise self._translated(f"launch of {function.name}, grid {grid}, block {block}", error) from error

    def timed(self, work: Any, repeats: int = 1) -> float:
        """Seconds that the card takes for one work(), by the stream's own clock; repeats: the mean over so many."""
        with self._here("timing"):
            begin = self.stream.record(self.cuda.Event())
        for _ in range(repeats):
            work()
        with self._here("timing"):
            end = self.stream.record(self.cuda.Event())
            end.synchronize()
            return self.cuda.get_elapsed_time(begin, end) / 1e3 / repeats

    # ---------------------------------------------------------------- matrices

    def gemm(self, a: Array, b: Array, out: Array, tf32: bool) -> Array:
        """out = a @ b by cuBLAS: a (m, k), b (k, n), out (m, n), all float32 or all float64; returns out.

        a and b are C-contiguous or transposed C-contiguous, out is C-contiguous.  tf32: float32 factors may be rounded
        to 10 bits of mantissa, for speed; False: they are not, whatever the environment says.

        The handle is this device's own.  CuPy's belong to a thread and a card: a thread that feeds two devices of one
        card would have one for both, and a handle that serves two streams need not give the same bits every time.
        """
        (m, k), n, dtype = a.shape, b.shape[1], a.dtype

        def what() -> str:  # for errors alone: types take longer to print than the rest of this method
            return f"gemm on {self.name}: {a.shape} {dtype} @ {b.shape} {b.dtype} into {out.shape} {out.dtype}"

        if b.shape[0] != k or out.shape != (m, n) or not out.flags.c_contiguous or max(m, n, k) >= 2**31:
            raise KernelError(f"{what()}: shapes do not fit, out is not C-contiguous, or a side is 2^31 or more")
        if dtype != b.dtype or dtype != out.dtype or dtype not in FACTORS:
            raise KernelError(f"{what()}: all must be float32 or all float64")
        self._check_owned(f"gemm on {self.name}", a, b, out)
        if out.size == 0:
            return out
        with self._here(what):
            if k == 0:
                self.cuda.runtime.memsetAsync(out.data.ptr, 0, out.nbytes, self.stream.ptr)
                return out
            cublas = self.cuda.cublas
            multiply = cublas.sgemm if dtype.itemsize == 4 else cublas.dgemm
            # cuBLAS counts columns first.  So read, our memory holds the transposes: out^T = b^T a^T.
            op_b, ld_b = as_columns(what, b, cublas)
            op_a, ld_a = as_columns(what, a, cublas)
            one, zero = FACTORS[dtype]
            factors = one, b.data.ptr, ld_b, a.data.ptr, ld_a, zero
            with self._lock:  # another thread's product must not come between the mode and the product it is for
                if self._blas is None:
                    self._blas = cublas.create()
                cublas.setMathMode(self._blas, TF32_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH)
                multiply(self._blas, op_b, op_a, n, m, k, *factors, out.data.ptr, n)  # on the current stream
        return out


def _said(ask: Callable[[], str]) -> str:
    """What `ask` returns, for the message of an error; a note where it raises one itself."""
    try:
        return ask()
    except Exception as error:
        return f"(no answer: {error})"


def _dotted(version: int) -> str:
    """CUDA writes 12.8 as 12080."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _inverse(axes: Sequence[int]) -> list[int]:
    return sorted(range(len(axes)), key=axes.__getitem__)
