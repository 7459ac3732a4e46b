"""minigrad: a deep learning framework on NumPy, written to be read.

    import minigrad
    x = minigrad.Tensor([[1.0, -2.0]], requires_grad=True)
    minigrad.functional.relu(x).sum().backward()
    print(x.grad)

The map: ops/ (one op in each file), tensor.py (tensors), engine.py and backward.py (gradients), device.py (what a
device is), processor/ (the CPU, and threads), gpu/ (cards; kernels are launched there), cudasim/ (a card on the CPU).
docs/architecture.md has it in full.
"""

from typing import TYPE_CHECKING

# Submodules first, names second. `minigrad.device` is the function, not the module of the same name: importing a
# submodule sets it as an attribute of the package, and the imports below set the function over it.
# (Modules that are imported later find theirs in sys.modules and leave the attribute alone.)
from . import checkpoint, functional, nn, onnx, optim, tensor
from .base.grad_mode import is_grad_enabled, no_grad
from .base.random import get_rng_state, initial_seed, manual_seed, set_rng_state
from .base.spellings import NotAFunction, of_module
from .cudasim.device import CudaSim
from .device import Device, default_device, default_devices, device, set_default_devices
from .errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceError,
    DTypeError,
    GradientError,
    GraphError,
    KernelError,
    MinigradError,
    MissingDependencyError,
    NotFiniteError,
    OutOfMemoryError,
    ShapeError,
)
from .functional import concat, split, stack, where
from .gpu.cuda import Cuda
from .nn import init
from .ops._creation import (
    arange,
    full,
    full_like,
    ones,
    ones_like,
    rand,
    rand_like,
    randn,
    randn_like,
    zeros,
    zeros_like,
)
from .ops._gemm import allow_tf32, gemm_in_use, set_gemm, tf32_allowed
from .processor.chunks import in_chunks, whole_batches
from .processor.cpu import CPU
from .processor.memory import empty_cache, keep_freed_memory, memory_summary, pool_limit, set_pool_limit
from .processor.parallel import in_turn, num_threads, on_devices, set_num_threads
from .processor.textbook import Textbook
from .tensor import Tensor, from_numpy
from .tools import notebook  # noqa: F401 (which gives tensors and modules what notebooks ask for)
from .tools.debugging import debug
from .tools.draw import draw
from .tools.gradcheck import gradcheck
from .tools.profiler import profile
from .tools.summary import summary

_KINDS = CPU, Textbook, Cuda, CudaSim  # of devices; each enters itself when it is imported

if not TYPE_CHECKING:  # which is to know what there is not
    __getattr__ = of_module("minigrad", functional, nn, optim)
tensor.__class__ = NotAFunction

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DTypeError",
    "DataError",
    "Device",
    "DeviceError",
    "GradientError",
    "GraphError",
    "KernelError",
    "MinigradError",
    "MissingDependencyError",
    "NotFiniteError",
    "OutOfMemoryError",
    "ShapeError",
    "Tensor",
    "allow_tf32",
    "arange",
    "checkpoint",
    "concat",
    "debug",
    "default_device",
    "default_devices",
    "device",
    "draw",
    "empty_cache",
    "from_numpy",
    "full",
    "full_like",
    "functional",
    "gemm_in_use",
    "get_rng_state",
    "gradcheck",
    "init",
    "in_chunks",
    "in_turn",
    "initial_seed",
    "is_grad_enabled",
    "keep_freed_memory",
    "manual_seed",
    "nn",
    "memory_summary",
    "no_grad",
    "num_threads",
    "on_devices",
    "onnx",
    "ones",
    "ones_like",
    "optim",
    "profile",
    "pool_limit",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "set_default_devices",
    "set_gemm",
    "set_num_threads",
    "set_pool_limit",
    "set_rng_state",
    "split",
    "stack",
    "summary",
    "tf32_allowed",
    "where",
    "whole_batches",
    "zeros",
    "zeros_like",
]
