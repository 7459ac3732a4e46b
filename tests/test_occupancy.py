"""How many blocks fit on a multiprocessor: the numbers are those of cuda_occupancy.h, which comes with CUDA."""

import pytest

from minigrad.errors import KernelError
from minigrad.gpu import nvrtc
from minigrad.gpu import sources as kernel
from minigrad.gpu.occupancy import LIMITS, occupancy

pytestmark = pytest.mark.cpu_only("no device at all")


@pytest.mark.parametrize(
    "architecture, threads, registers, shared, blocks, by",
    [
        ("sm_75", 256, 32, 0, 4, "threads"),
        ("sm_75", 32, 16, 0, 16, "blocks"),
        ("sm_75", 128, 32, 16 << 10, 4, "shared memory"),
        ("sm_80", 256, 32, 0, 8, "threads"),
        ("sm_80", 256, 128, 26368, 2, "registers"),
        ("sm_80", 256, 33, 0, 6, "registers"),  # rounded up to 40 a thread
        ("sm_80", 32, 16, 0, 32, "blocks"),
        ("sm_80", 128, 40, 32768, 4, "shared memory"),  # five, but for the 1024 bytes more of each block
        ("sm_86", 256, 128, 26368, 2, "registers"),
        ("sm_86", 128, 40, 49152, 2, "shared memory"),
        ("sm_89", 32, 16, 0, 24, "blocks"),
        ("sm_90", 256, 102, 22272, 2, "registers"),
        ("sm_90", 96, 104, 0, 5, "registers"),  # four warps in each quarter: 16, where all registers would do for 19
        ("sm_90", 128, 40, 49152, 4, "shared memory"),
        ("sm_90", 1024, 64, 0, 1, "registers"),
        ("sm_100", 96, 255, 0, 2, "registers"),  # registers for 8 warps, of which a block has 3
    ],
)
def test_how_many_blocks_fit(architecture, threads, registers, shared, blocks, by):
    found = occupancy(architecture, threads, registers, shared)
    assert (found.blocks, found.by) == (blocks, by)
    assert found.warps == blocks * threads // 32 and found.share == found.warps * 32 / LIMITS[architecture].threads


def test_it_is_known_for_all_architectures_that_kernels_are_compiled_for():
    assert set(nvrtc.ARCHITECTURES) == set(LIMITS)
    assert str(occupancy("sm_80", 256, 128, 26368)) == "25% (2 x 8 warps: registers)"


def test_the_threads_of_a_block_are_those_of_its_launch_bounds():
    assert nvrtc.block_of("relu", "relu_forward") == 256  # it has none
    text = """
#define SIDE 16
extern "C" __global__ __launch_bounds__(512) void ab(REAL* y) {}
extern "C" __global__ __launch_bounds__(SIDE * 8, 3) void a(REAL* y) {}
extern "C" __global__ __launch_bounds__(OTHER) void c(REAL* y) {}
"""
    kernel.replace_source("relu", text)
    try:
        assert [nvrtc.block_of("relu", name) for name in ("a", "ab", "b")] == [128, 512, 256]
        with pytest.raises(KernelError, match="OTHER"):
            nvrtc.block_of("relu", "c")
    finally:
        kernel.replace_source("relu", None)


def test_the_table_shows_it():
    numbers = {"sm_75": [32, 0, 0, 0], "sm_90": [128, 26368, 0, 0]}
    head, row = nvrtc.table({"kernels": {"relu": {"relu_forward REAL=float": numbers}}}).splitlines()
    assert head.split()[-3:] == ["threads", "sm_75", "sm_90"] and row.endswith("256      100 t  25 r")
