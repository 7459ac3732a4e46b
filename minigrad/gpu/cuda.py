"""`cuda:N` as a device, and what to say where it cannot be one; the runtime is in minigrad/gpu/cuda_runtime.py."""

from __future__ import annotations

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
    def array_type(self) -> type:  # type: ignore[override]
        return self.runtime.cupy.ndarray

    def _new_runtime(self) -> CudaRuntime:
        cupy_for(self.index)  # or an error that says what is missing
        from .cuda_runtime import CudaRuntime

        return CudaRuntime(self.index)


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
