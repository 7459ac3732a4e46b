"""cudasim: runs CUDA kernels on the CPU, with g++ alone, and checks what a GPU would not.

What runs a kernel:

- settings.py: how kernels run: fast or check mode, the order of the threads, limits
- source.py: what can be told from a kernel's text: its entry points, which of them wait, what it must not use
- compiler.py, assembly.py: from a kernel's text to a shared library, cached; where its shared memory lies
- native.py: the C++ side as Python sees it: structs, the guard against faults
- module.py, call.py: RawModule and Function: launching; one launch on the C++ side
- second_run.py: what a second run of a launch shows, in check mode
- cuda_file.py: files of others, with the host's code in them; preprocess.py, tokens.py, declarations.py, emission.py
- reports.py, counters.py: what was found, with file and line; memory traffic, line by line
- cpp/: the emulator itself; begin with cuda.hpp, then scheduler.cpp; foreign.hpp is for files of others

What makes it a device, `cudasim:0`:

- arena.py, memory.py: addresses of its own; arrays, guard zones, marks of what was written
- streams.py: the order of work on several streams
- runtime.py: memory, streams and launches, with the methods that minigrad/gpu/cuda_runtime.py has for a real card
- device.py: the device itself; what it needs is imported when the first tensor goes there
"""

from .settings import current, options

__all__ = ["current", "options"]
