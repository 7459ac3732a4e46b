"""The cases of matrix units: convolutions, their gradients and matrix products where allow_tf32 has been called.

On the host the same ops run on rounded factors.  So the numbers are close, but for the sums: which last bits matrix
units keep of them, and in which order they add, is NVIDIA's secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...ops._gemm import allow_tf32, gemm_in_use, set_gemm, tf32_allowed
from ...tensor import Tensor
from .case import Case, as_tf32
from .ladder import LADDERS

TOLERANCE = 2e-4


@contextmanager
def _matrix_units() -> Iterator[None]:
    """Inside, our own kernels multiply, and may round."""
    before = tf32_allowed(), gemm_in_use()
    try:
        allow_tf32(True)
        set_gemm("minigrad")
        yield
    finally:
        allow_tf32(before[0])
        set_gemm(before[1])


def _case(name: str) -> Case:
    """The op at the top of a ladder, at the sizes of its steps."""
    ladder = LADDERS[name]

    def function(**inputs: Tensor) -> Tensor:
        rounded = {
            key: Tensor(as_tf32(x.numpy()), device=x.device) if x.device.on_host else x for key, x in inputs.items()
        }
        with _matrix_units():
            return ladder.prepare(ladder.top, **rounded, **ladder.settings)()

    return Case(
        f"{name.replace('_', ' ')}, TF32",
        (ladder.top,),
        function,
        ladder.small,
        ladder.real,
        ladder.moves,
        backward="",
        flops=ladder.flops,
        tolerance=TOLERANCE,
        dtypes=("float32",),
        matrix_units=True,
    )


CASES = [_case(name) for name in ("gemm", "conv2d", "conv2d_backward_x", "conv2d_backward_w")]
