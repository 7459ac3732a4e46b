"""cudasim: runs CUDA kernels on the CPU, with g++ alone, and checks what a GPU would not.

What runs a kernel:

- settings.py: how kernels run: fast or check mode, the order of the threads, limits
- source.py: what can be told from a kernel's text: its entry points, which of them wait, what it must not use
- compiler.py, assembly.py: from a kernel's text to a shared library, cached; where its shared memory lies
- native.py: the C++ side as Python sees it: structs, the guard against faults
- module.py, call.py: RawModule and Function: launching; one launch on the C++ side
- second_run.py: what a second run of a launch shows, in check mode
- reports.py, counters.py: what was found, with file and line; memory traffic, line by line
- trace.py: what one thread does, step by step
- cpp/: the emulator itself; begin with cuda.hpp, then scheduler.cpp; foreign.hpp is for files of others

What runs anybody's kernel, from `run` and from the command `python -m minigrad.cudasim`:

- cuda_file.py: a CUDA file as it comes, and its kernels; preprocess.py, tokens.py, declarations.py, emission.py
- passing.py: NumPy's arrays and numbers as arguments of a kernel, and what does not fit
- running.py, comparing.py, testing.py: `run`, its results in all thread orders, and tests of them
- command.py, listing.py, values.py, gdb.py: the command for any file; own_kernels.py: that for the files of kernels/

What makes it a device, `cudasim:0`:

- arena.py, memory.py: addresses of its own; arrays, guard zones, marks of what was written
- streams.py: the order of work on several streams
- runtime.py: memory, streams and launches, with the methods that minigrad/gpu/cuda_runtime.py has for a real card
- device.py: the device itself; what it needs is imported when the first tensor goes there
"""

from typing import TYPE_CHECKING, Any

from .settings import current, options

if TYPE_CHECKING:
    from .passing import empty
    from .running import Result, run
    from .testing import assert_kernel
    from .trace import Trace

__all__ = ["Result", "Trace", "assert_kernel", "current", "empty", "options", "run"]

_LATER = {"Result": "running", "Trace": "trace", "assert_kernel": "testing", "empty": "passing", "run": "running"}


def __getattr__(name: str) -> Any:
    """What runs kernels is imported when it is first asked for: `import minigrad` does without."""
    if name not in _LATER:
        raise AttributeError(f"module 'minigrad.cudasim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATER[name]}", __name__), name)
