"""The CUDA sources: where they lie, and what Python reads in them.  .ci/run looks into an installed wheel."""

import re

import numpy as np
import pytest

from minigrad.errors import DeviceError, KernelError
from minigrad.gpu import sources as kernel
from minigrad.gpu.sources import (
    constants,
    entry_points,
    full_source,
    kernel_folder,
    kernel_source,
    remembered,
    replace_source,
    struct,
)

SOURCE = """#define ROWS 8  // of a block
#define TWICE (2 * ROWS)
# define  COLUMNS\t16 /* and */
// #define COMMENTED 3
#ifndef TILE
#define TILE 1024
#endif

struct Sizes {
    int n, rows[2];             // a comment; with a semicolon
    long long steps[ROWS][3];
    double scale;
};
struct Functions {
    int n;
    __device__ int twice() const { return 2 * n; }
};
struct Endless {
    int steps[NOWHERE];
};
struct Open {
    REAL value;
};
extern "C" __global__ void f(REAL* __restrict__ y, const __grid_constant__ Sizes sizes, Sizes more, long long n) {}
"""


@pytest.fixture
def source():
    """SOURCE in place of kernels/relu.cu."""
    replace_source("relu", SOURCE, "my/relu.cu")
    yield SOURCE
    replace_source("relu", None)


def test_a_checkout_reads_its_own_folder():
    assert kernel_folder().name in ("kernels", "_kernels")
    assert (kernel_folder() / "README.md").is_file()


def test_an_unknown_kernel_is_named():
    with pytest.raises(DeviceError, match="no nonsense.cu"):
        kernel_source("nonsense")


# ---------------------------------------------------------------- constants


def test_constants_are_the_source_s(source):
    assert constants("relu", "COLUMNS", "ROWS", "TILE") == (16, 8, 1024)
    assert constants("relu", "WARP") == (32,)  # of common.cuh
    assert constants("relu") == ()


def test_constants_follow_the_source():
    before = constants("lrn", "PIXELS", "CHANNELS")
    assert before == tuple(
        int(re.search(rf"#define {name} (\d+)", kernel_source("lrn"))[1]) for name in ("PIXELS", "CHANNELS")
    )
    replace_source("lrn", kernel_source("lrn").replace("#define PIXELS 128", "#define PIXELS 64"))
    try:
        assert constants("lrn", "PIXELS", "CHANNELS") == (64, before[1])
    finally:
        replace_source("lrn", None)
    assert constants("lrn", "PIXELS", "CHANNELS") == before


def test_a_constant_that_is_not_there_is_named_with_its_file(source):
    for name, message in {
        "COMMENTED": r"^my/relu.cu: the host asks for its COMMENTED, and there is no such #define$",
        "TWICE": r"^my/relu.cu: the host asks for its TWICE, which must be an integer, not `\(2 \* ROWS\)`$",
    }.items():
        with pytest.raises(KernelError, match=message):
            constants("relu", "ROWS", name)
    with pytest.raises(KernelError, match="^kernels/tanh.cu: .*NOTHING"):
        constants("tanh", "NOTHING")


def test_a_launch_goes_by_the_constants_of_a_replaced_source():
    """Half as many channels in a block of threads: twice the blocks, the same numbers."""
    import minigrad
    from minigrad.cudasim.compiler import available
    from minigrad.cudasim.runtime import SimRuntime

    if available() is not None:
        pytest.skip(str(available()))
    x, grids = np.random.default_rng(1).normal(size=(2, 40, 3, 5)), []
    real = SimRuntime.launch

    def launch(self, function, parameters, grid, block, args, shared_mem):
        grids.append((grid, block))
        real(self, function, parameters, grid, block, args, shared_mem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimRuntime, "launch", launch)
        expected = minigrad.functional.lrn(minigrad.Tensor(x, device="cudasim:0")).numpy()
        text = (
            kernel_source("lrn")
            .replace("#define CHANNELS 32", "#define CHANNELS 16")
            .replace("PIXELS 128", "PIXELS 64")
        )
        replace_source("lrn", text)
        try:
            got = minigrad.functional.lrn(minigrad.Tensor(x, device="cudasim:0")).numpy()
        finally:
            replace_source("lrn", None)
    np.testing.assert_array_equal(got, expected)
    assert grids == [((2, 1, 1), (128, 1, 1)), ((3, 1, 1), (64, 1, 1))]


# ---------------------------------------------------------------- structs


def test_a_struct_is_filled_by_name_and_laid_out_as_c_does(source):
    filled = struct("relu", "Sizes", scale=0.5, steps=np.arange(24).reshape(8, 3), rows=(7, 8), n=3)
    assert filled.shape == (1,) and filled.dtype.itemsize == 216
    offsets = {name: filled.dtype.fields[name][1] for name in filled.dtype.names}
    assert offsets == {"n": 0, "rows": 4, "steps": 16, "scale": 208}  # 4 bytes before steps are skipped
    raw = filled.tobytes()
    assert np.frombuffer(raw, np.int32, 3).tolist() == [3, 7, 8]
    assert np.frombuffer(raw, np.int64, 24, 16).tolist() == list(range(24))
    assert np.frombuffer(raw, np.float64, 1, 208) == 0.5


def test_what_is_remembered_is_worked_out_once_until_a_kernel_changes(source):
    calls = []

    @remembered
    def sizes(n):
        calls.append(n)
        return struct("relu", "Sizes", scale=0, steps=0, rows=constants("relu", "ROWS"), n=n)

    first = sizes(3)
    assert sizes(3) is first and calls == [3] and first["rows"].tolist() == [[8, 8]]
    with pytest.raises(ValueError, match="read-only"):
        first["n"] = 4
    replace_source("relu", SOURCE.replace("#define ROWS 8", "#define ROWS 5"))
    assert sizes(3)["rows"].tolist() == [[5, 5]] and calls == [3, 3]


def test_members_must_be_those_of_the_struct(source):
    members = {"n": 1, "rows": (1, 2), "steps": np.zeros((8, 3)), "scale": 1.0}
    with pytest.raises(
        KernelError, match="my/relu.cu: struct Sizes has the members n, rows, steps, scale; given were n"
    ):
        struct("relu", "Sizes", n=1)
    with pytest.raises(KernelError, match="given were n, rows, steps, scale, more"):
        struct("relu", "Sizes", **members, more=2)
    with pytest.raises(KernelError, match="my/relu.cu: .*no struct Nonsense"):
        struct("relu", "Nonsense", n=1)
    with pytest.raises(KernelError, match="no struct Functions of plain members"):
        struct("relu", "Functions", n=1)
    with pytest.raises(KernelError, match="struct Open: 'REAL value' has a type that launch cannot pass"):
        struct("relu", "Open", value=1)
    with pytest.raises(KernelError, match=r"struct Endless: 'int steps\[NOWHERE\]' must have an integer"):
        struct("relu", "Endless", steps=1)
    with pytest.raises(KernelError, match="struct Sizes: n = 2147483648 does not fit int32"):
        struct("relu", "Sizes", **members | {"n": 2**31})


def test_parameters_that_are_structs(source):
    y, sizes, more, n = entry_points(full_source("relu"), {"REAL": "float"})["f"]
    assert y.pointer and n.dtype == np.int64 and sizes.name == "sizes" and not sizes.pointer
    assert sizes.dtype == more.dtype == struct("relu", "Sizes", n=0, rows=0, steps=0, scale=0).dtype
    assert kernel.open_types("relu") == ["REAL"]
    with pytest.raises(KernelError, match="parameter 'Missing m' has a type"):
        entry_points('extern "C" __global__ void f(Missing m) {}', {})


def test_the_layout_of_strides_is_that_of_common_cuh():
    assert kernel.LAYOUT.itemsize == 8 * 6 + 8 * 4 * 6 + 4 * 2 * 6 + 4 * 3 + 4  # 4 to make it a multiple of 8
    assert kernel.LAYOUT["stride"].shape == (4, 6)


# ---------------------------------------------------------------- files that kernels include


def test_an_included_file_keeps_its_own_lines():
    lines, own = full_source("sgd").splitlines(), kernel_source("sgd").splitlines()
    begin = lines.index('#line 1 "kernels/update.cuh"')
    text = (kernel_folder() / "update.cuh").read_text().splitlines()
    assert lines[begin + 1 : begin + 1 + len(text)] == text
    back = next(i for i in range(begin + 1, len(lines)) if lines[i].startswith("#line"))
    include = own.index('#include "update.cuh"')
    assert lines[back] == f'#line {include + 2} "kernels/sgd.cu"' and lines[back + 1] == own[include + 1]


@pytest.mark.parametrize("name", ["gemm", "conv2d"])
@pytest.mark.parametrize("tf32", [True, False])
def test_lines_keep_their_numbers_behind_a_header_that_is_left_out(name, tf32):
    """As a compiler counts: it skips the markers of a branch that is not taken, and counts its lines all the same."""
    file, number, looked_at = "", 0, set()
    around = []  # of every #if around a line: its condition, and whether this branch is taken
    for line in full_source(name).rstrip("\n").split("\n"):
        marker = re.fullmatch(r'#line (\d+) "([^"]+)"', line)
        directive = re.match(r"\s*#\s*(ifdef|ifndef|if|else|elif|endif)\b\s*(\w*)", line)
        if directive and directive[1] == "endif":
            around.pop()
        elif directive and directive[1] in ("else", "elif"):
            around[-1] = (around[-1][0], around[-1][0] != "TF32" or not tf32)
        elif directive:
            around.append((directive[2], directive[2] != "TF32" or tf32))
        elif all(taken for _, taken in around):
            if marker:
                file, number = marker[2], int(marker[1])
                continue
            own = (kernel_folder().parent / file).read_text(encoding="utf-8").split("\n")
            assert (line, file, number) == (own[number - 1], file, number)
            looked_at.add((file, number))
        number += 1
    last = (kernel_folder() / "tile_product.cuh").read_text(encoding="utf-8").count("\n")
    assert ("kernels/tile_product.cuh", last) in looked_at
    assert (("kernels/tile_product_tf32.cuh", 1) in looked_at) is tf32


def test_an_included_file_can_be_replaced_and_an_unknown_one_stays():
    replace_source("tile_product.cuh", "// mine")
    try:
        assert "// mine" in full_source("gemm") and "struct Share" not in full_source("gemm")
    finally:
        replace_source("tile_product.cuh", None)
    assert "struct Share" in full_source("gemm")
    replace_source("relu", '#include "nothing.cuh"')
    try:
        assert '#include "nothing.cuh"' in full_source("relu")  # which the compilers' rules refuse, with file and line
    finally:
        replace_source("relu", None)
