"""First light: one op of each sort, and then all kernels compiled at once, so that nothing that follows waits for that.

CuPy compiles a kernel when it is first called, 0.4 s each, and keeps the result in its cache folder, where the other
parts find it.  The compiler may run in many threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from ...device import Device
from ..cases import CASES, Case, differences, run
from ..cuda import Cuda
from ..cuda_runtime import OPTIONS
from ..nvrtc import variants
from ..sources import MACROS, entry_points, full_source, kernel_names
from .compare import usable
from .report import Part, cell, table

# A kernel of our own, cuBLAS (or our kernel in its place), shared memory and barriers.
FIRST = ("relu", "linear, few rows", "conv2d, conv1")


def first_light(part: Part, device: Device) -> None:
    """A row for each op of FIRST, forward and backward against NumPy, and one for all kernels."""
    part.head(*table(("", "", "s")))
    jobs = [(f"{name}, small, float32", partial(_op, part, device, CASES[name])) for name in FIRST]
    if isinstance(device, Cuda):
        jobs.append(("all kernels compiled", partial(_compiled, part, device)))
    part.work(jobs, partial(usable, device))


def _op(part: Part, device: Device, case: Case) -> Iterator[tuple[str, str]]:
    begin = time.perf_counter()
    results = run(case, device, "small", np.dtype("float32"))
    seconds = time.perf_counter() - begin
    far = differences(case, results, run(case, "cpu:0", "small", np.dtype("float32")))
    wrong = [f"{name} is {distance:.3g} tolerances from NumPy's" for name, distance in far.items() if not distance <= 1]
    for problem in wrong:
        part.fail(f"{case.name}: {problem}")
    yield f"**{'; '.join(wrong)}**" if wrong else "as NumPy's", f"{seconds:.2f}"


def _compiled(part: Part, device: Cuda) -> Iterator[tuple[str, str]]:
    cupy, begin = device.xp, time.perf_counter()
    modules = [(name, types) for name in kernel_names() for types in variants(name)]

    def compiled(module: tuple[str, dict[str, str]]) -> str:
        """Why it does not compile."""
        name, types = module
        source = full_source(name)
        options = tuple(f"-D{MACROS.get(key, key)}={value}" for key, value in sorted(types.items()))
        try:
            with cupy.cuda.Device(device.card), device.runtime.stream:
                code = cupy.RawModule(code=source, options=(*OPTIONS, *options), backend="nvrtc")
                code.get_function(next(iter(entry_points(source, types))))
        except Exception as error:
            return f"kernels/{name}.cu {' '.join(options)}: {cell(error)}"
        return ""

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        problems = list(filter(None, pool.map(compiled, modules)))
    for problem in problems:
        part.fail(problem)
    bad = f", **{len(problems)} not**" if problems else ""
    yield f"{len(modules) - len(problems)} modules, {threads} threads{bad}", f"{time.perf_counter() - begin:.2f}"
