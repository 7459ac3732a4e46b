"""The line that starts gdb on a launch, and stops in the kernel."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .compiler import cache_folder
from .module import RawModule
from .source import numbered_file
from .trace import Trace

# What gdb is to call CUDA's names: cuda.hpp has them as macros, which leave no trace in a library.
_NAMES = {"threadIdx": "thread", "blockIdx": "block", "blockDim": "block_size", "gridDim": "grid_size"}
_TICK = signal.SIGRTMAX - 2  # with which host.cpp looks at the clock, in every launch


def gdb_line(module: RawModule, kernel: str, arguments: Sequence[str], trace: Trace | None) -> str:
    """A command of the shell: gdb runs `python -m minigrad.cudasim` with these arguments and stops in the kernel, in
    its first thread or in the one of the trace.

    module: the kernel in mode "debug", of which gdb shall show the source.
    """
    asks = ["set breakpoint pending on", f"handle SIG{_TICK} nostop noprint pass"]
    asks += [f"macro define {name} (cs_here.{field})" for name, field in _NAMES.items()]
    asks.append(f"directory {_sources(module)}")
    where = ""
    if trace is not None:
        index = {"threadIdx": trace.thread, "blockIdx": trace.block}
        tests = [f"{name}.{axis} == {i}" for name, at in index.items() for axis, i in zip("xyz", at)]
        where = " if " + " && ".join(tests)
    asks += [f"break {kernel}{where}", "run"]
    words = ["gdb", "-q", *(word for ask in asks for word in ("-ex", ask)), "--args", sys.executable, "-m"]
    return shlex.join([*words, "minigrad.cudasim", *arguments])


def _sources(module: RawModule) -> Path:
    """A folder in which the kernel's files lie under the names that the compiler was given."""
    names = [os.path.abspath(name) for name in module.lines.files]
    folder = cache_folder() / "sources" / hashlib.sha256(repr(names).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        link = folder / numbered_file(number)
        if os.path.isfile(name) and not link.is_symlink():
            link.symlink_to(name)
    return folder
