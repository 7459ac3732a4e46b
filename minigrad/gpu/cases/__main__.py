"""Run the small cases of one kernel file on one device, and nothing else: for compute-sanitizer to look on.

    compute-sanitizer --tool racecheck python -m minigrad.gpu.cases lrn cuda:0
    MINIGRAD_CUDASIM_MODE=check python -m minigrad.gpu.cases lrn cudasim:0        the emulator's checks instead

A line for each case, float32 and float64, with and without TF32 where products are summed.  Matrices are multiplied by
our own kernels, not by cuBLAS.  What the emulator reports is printed, as "report KIND: text", and is no failure here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from ...device import device as device_named
from ...errors import KernelError, MinigradError
from ...ops._gemm import allow_tf32, set_gemm
from ..cuda import cupy_for
from . import cases_of, run


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all cases ran; 1: one could not be run."""
    parser = argparse.ArgumentParser(prog="python -m minigrad.gpu.cases", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kernel", help="a file of kernels/, without its ending")
    parser.add_argument("device", help="cuda:N or cudasim:N")
    asked = parser.parse_args(arguments)
    cases = cases_of(asked.kernel)
    if not cases:
        parser.error(f"kernels/{asked.kernel}.cu has no case")
    set_gemm("minigrad")
    where = device_named(asked.device)
    if where.kind == "cuda":
        # CuPy's pool cuts arrays out of large pieces, where an access beyond an array's end is nobody's fault.
        cupy_for(where.index).cuda.set_allocator(None)
    status = 0
    for case in cases:
        products = bool({"gemm", "conv2d"} & set(case.kernels))
        for dtype, tf32 in (("float32", False), ("float64", False), *([("float32", True)] if products else [])):
            allow_tf32(tf32)
            label = f"{case.name}, {dtype}{', TF32' if tf32 else ''}"
            try:
                run(case, where, "small", np.dtype(dtype))
                where.synchronize()
            except KernelError as error:
                print(f"{label}: {error}", file=sys.stderr)
                reports = getattr(error, "reports", ())
                for report in reports:
                    print(f"report {report.kind}: {report}".replace("\n", " "), flush=True)
                status |= not reports
            except MinigradError as error:
                print(f"{label}: {error}", file=sys.stderr)
                status = 1
            else:
                print(f"{label}: done", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
