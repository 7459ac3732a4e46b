"""A case for every kernel: one op to run on any device, small (for the emulator's checks) and real (AlexNet's layers).

    run(CASES["lrn"], "cudasim:0", "small", np.float32)     ->  {"y": array, "dx": array}

The same case on another device must give the same numbers: so kernels are compared with NumPy, mutants of
kernels are noticed, and hardware is compared with the emulator.  case.py says what a case is, table.py has them all.
"""

from .case import Case, computed_flops, differences, inputs_of, moved_bytes, run
from .table import CASES, cases_of

__all__ = ["CASES", "Case", "cases_of", "computed_flops", "differences", "inputs_of", "moved_bytes", "run"]
