"""kernels/instructions.cuh: asynchronous copies and matrix units, on the emulator; and the PTX that a card gets."""

import ctypes
import re
import runpy

import numpy as np
import pytest
from emulated import array, fresh, launch
from test_cudasim import faults, line_of

from minigrad.cudasim import compiler
from minigrad.cudasim import source as kernel_source
from minigrad.cudasim.module import RawModule
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import KernelError, MissingDependencyError
from minigrad.gpu import nvrtc, sources

needs_emulator = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
f32 = np.float32

INSTRUCTIONS = (sources.kernel_folder() / "instructions.cuh").read_text(encoding="utf-8")


def module(code, mode="fast"):
    header = f'#line 1 "kernels/instructions.cuh"\n{INSTRUCTIONS}\n'
    return RawModule(f'{header}#line 1 "kernels/test.cu"\n{code}', mode=mode)


def rounded(x):
    """TF32 by the book: of the two neighbours with 10 bits of mantissa the nearer, of equally near ones the larger."""
    x = np.asarray(x, np.float64)
    place = np.ldexp(1.0, np.frexp(x)[1] - 11)
    return (np.sign(x) * np.floor(np.abs(x) / place + 0.5) * place).astype(f32)


# ---------------------------------------------------------------- rounding

ROUND = """extern "C" __global__ void rounding(const float* __restrict__ x, float* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = tf32(x[i]);
}"""


@needs_emulator
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_tf32_rounds_to_the_nearest_and_ties_away_from_zero(mode):
    random = np.random.default_rng(0)
    few = np.ldexp(random.integers(1 << 10, 1 << 11, 200).astype(f32), random.integers(-80, 80, 200)).astype(f32)
    ties = few * f32(1 + 2.0**-22) + np.ldexp(f32(0.5), np.frexp(few)[1] - 11)  # just above a tie
    exact_ties = few + np.ldexp(f32(0.5), np.frexp(few)[1] - 11)
    x = np.concatenate([random.standard_normal(1000).astype(f32), few, ties, exact_ties])
    x = np.concatenate([x, -x, [0, f32(2) - f32(2.0**-23), -f32(1) + f32(2.0**-24)]]).astype(f32)
    y = fresh(x.size)
    launch(module(ROUND, mode), "rounding", (x.size + 63) // 64, 64, array(x), y, np.int32(x.size))
    np.testing.assert_array_equal(np.asarray(y), rounded(x))
    assert (np.asarray(y).view(np.uint32) & 0x1FFF == 0).all()
    assert (np.abs(y - x) <= 2.0**-11 * np.abs(x)).all() and (y != x).any()
    half = few.size  # exact ties go away from zero
    there = np.asarray(y)[1000 + 2 * half : 1000 + 3 * half]
    assert (np.abs(there) > np.abs(exact_ties)).all()


@needs_emulator
def test_tf32_of_what_is_no_number():
    x = np.array([np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 0.0, -0.0], f32)
    x = np.concatenate([x, np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(f32)])
    y = fresh(x.size)
    launch(module(ROUND), "rounding", 1, 64, array(x), y, np.int32(x.size))
    expected = np.array([np.inf, -np.inf, np.nan, np.inf, -np.inf, 0.0, -0.0, np.nan, np.nan, np.nan], f32)
    np.testing.assert_array_equal(np.asarray(y), expected)
    np.testing.assert_array_equal(np.signbit(y[5:7]), [False, True])


# ---------------------------------------------------------------- the matrix unit

MULTIPLY = """extern "C" __global__ void multiply(
    const float* __restrict__ as, const float* __restrict__ bs, float* __restrict__ ds) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    as += warp * 128, bs += warp * 64, ds += warp * 128;
    float a[4], b[2], d[4];
    for (int i = 0; i < 4; i++) a[i] = ROUND(as[(lane / 4 + i % 2 * 8) * 8 + lane % 4 + i / 2 * 4]);
    for (int i = 0; i < 2; i++) b[i] = ROUND(bs[(lane % 4 + i * 4) * 8 + lane / 4]);
    for (int i = 0; i < 4; i++) d[i] = ds[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
    multiply_add_tf32(d, a, b); // HERE
    for (int i = 0; i < 4; i++) ds[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}"""


def matrices(warps=3):
    random = np.random.default_rng(1)
    return (random.standard_normal((warps, *shape)).astype(f32) for shape in ((16, 8), (8, 8), (16, 8)))


def in_order(a, b, d):
    """d + a b as the emulator adds: in the order of k, each time rounding to a float."""
    for k in range(8):
        d = (d + a[:, :, k : k + 1].astype(np.float64) * b[:, k : k + 1, :]).astype(f32)
    return d


@needs_emulator
@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_matrix_unit_multiplies_rounded_factors(mode, order):
    a, b, d = matrices()
    result = array(d)
    with options(order=order, seed=5):
        launch(module(MULTIPLY.replace("ROUND", "tf32"), mode), "multiply", 1, 96, array(a), array(b), result)
    np.testing.assert_array_equal(np.asarray(result), in_order(rounded(a), rounded(b), d))
    exact = rounded(a).astype(np.float64) @ rounded(b) + d
    np.testing.assert_allclose(result, exact, rtol=0, atol=2e-6)
    assert np.abs(result - (a.astype(np.float64) @ b + d)).max() > 1e-4  # so the factors are rounded


FRAGMENTS = """extern "C" __global__ void fragments(
    const float* __restrict__ as, const float* __restrict__ bs, float* __restrict__ ds) {
    float a[4], b[2], d[4] = {};
    for (int i = 0; i < 4; i++) a[i] = as[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; i++) b[i] = bs[threadIdx.x * 2 + i];
    multiply_add_tf32(d, a, b);
    for (int i = 0; i < 4; i++) ds[threadIdx.x * 4 + i] = d[i];
}"""
DRAWING = sources.kernel_folder().parent / "docs" / "images" / "fragments.py"


@needs_emulator
@pytest.mark.skipif(not DRAWING.is_file(), reason="no documentation here")
def test_the_picture_of_the_fragments_is_the_emulator_s():
    drawn = runpy.run_path(str(DRAWING))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["picture"](), f"python {DRAWING.name} draws it anew"
    a, b, d = (rounded(x[0]) for x in matrices(1))

    def places(name):
        elements, place = drawn["LAYOUT"][name]
        return tuple(np.array([place(lane, i) for lane in range(32) for i in range(elements)]).T)

    result = fresh(128)
    launch(module(FRAGMENTS, "check"), "fragments", 1, 32, array(a[places("a")]), array(b[places("b")]), result)
    d[places("d")] = result
    np.testing.assert_allclose(d, a.astype(np.float64) @ b, atol=2e-6)


@needs_emulator
def test_factors_that_are_not_rounded_are_cut_off_and_reported():
    a, b, d = matrices()
    code, result = MULTIPLY.replace("ROUND", ""), array(d)
    launch(module(code), "multiply", 1, 96, array(a), array(b), result)
    cut = [(x.view(np.uint32) & 0xFFFFE000).view(f32) for x in (a, b)]
    np.testing.assert_array_equal(np.asarray(result), in_order(*cut, d))
    (found,) = faults(launch, module(code, "check"), "multiply", 1, 96, array(a), array(b), array(d))
    assert (found.kind, found.file, found.line) == ("UNROUNDED", "kernels/test.cu", line_of(code, "HERE"))
    assert found.thread == (0, 0, 0) and f"a[0] = {a[0, 0, 0]:.9g} has more than the 10 bits" in found.text
    # the lane that is named is the one whose factor it is, and not the last to arrive
    b = rounded(b)
    for bit in (11, 23):  # the first that does not count, and the last
        b[0, 6, 5] = 1 + 2.0**-bit  # k = 6, n = 5: lane 5 * 4 + 2, b[1]
        (found,) = faults(launch, module(code, "check"), "multiply", 1, 96, array(rounded(a)), array(b), array(d))
        assert found.thread == (22, 0, 0) and f"b[1] = {b[0, 6, 5]:.9g} has" in found.text


@needs_emulator
def test_nan_and_infinity_go_through_a_matrix_unit():
    a, b, d = (rounded(x) for x in matrices(1))
    a[0, 2, 3], b[0, 1, 7] = np.array([0x7FFFFFFF, 0x7F800000], np.uint32).view(f32)  # a card's NaN, and infinity
    result = array(d)
    launch(module(MULTIPLY.replace("ROUND", "tf32"), "check"), "multiply", 1, 32, array(a), array(b), result)
    with np.errstate(invalid="ignore"):
        expected = a.astype(np.float64) @ b + d
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))


# ---------------------------------------------------------------- asynchronous copies

COPY = """extern "C" __global__ void copy(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ __align__(16) float s[64 * WORDS];
    int t = threadIdx.x;
    for (int i = 0; i < WORDS; i++) s[t * WORDS + i] = -1;
    const float* from = x + blockIdx.x * 64 * WORDS + t * WORDS;
    copy_async<4 * WORDS>(s + t * WORDS, t % 3 == 2 ? nullptr : from, t % 3 != 2); // COPY
    copy_async_commit();
    WAIT
    __syncthreads();
    for (int i = 0; i < WORDS; i++) y[(blockIdx.x * 64 + t) * WORDS + i] = s[(63 - t) * WORDS + i];
    REST
}"""


@needs_emulator
@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("words", [1, 2, 4])
def test_copies_arrive_and_outside_there_are_zeros(mode, words):
    x = np.random.default_rng(2).standard_normal((2, 64, words)).astype(f32)
    code = COPY.replace("WORDS", str(words)).replace("WAIT", "copy_async_wait<0>();").replace("REST", "")
    y = fresh(x.shape)
    launch(module(code, mode), "copy", 2, 64, array(x), y)
    expected = np.where(np.arange(64)[:, None] % 3 == 2, f32(0), x)[:, ::-1]
    np.testing.assert_array_equal(np.asarray(y), expected)


@needs_emulator
def test_a_copy_is_done_as_late_as_may_be():
    """So that a wait that is missing shows in the result."""
    x = np.random.default_rng(3).standard_normal((2, 64, 4)).astype(f32)
    code = COPY.replace("WORDS", "4").replace("WAIT", "copy_async_wait<1>();")
    code = code.replace("REST", "__syncthreads(); copy_async_wait<0>();")
    y = fresh(x.shape)
    launch(module(code), "copy", 2, 64, array(x), y)
    assert (np.asarray(y) == -1).all()
    found = faults(launch, module(code, "check"), "copy", 2, 64, array(x), fresh(x.shape))
    races = [report for report in found if "asynchronously" in report.text]
    assert races and {report.kind for report in races} == {"RACE"}
    copy = f"kernels/test.cu:{line_of(code, 'COPY')}"
    assert f"thread (63,0,0) of this block copies asynchronously at {copy}; that thread has not" in races[0].text


@needs_emulator
@pytest.mark.parametrize("word", range(4))
def test_no_word_may_be_read_before_the_wait(word):
    code = COPY.replace("s[(63 - t) * WORDS + i]", f"s[(63 - t) * WORDS + {word}]").replace("WORDS", "4")
    code = code.replace("WAIT", "").replace("REST", "__syncthreads(); copy_async_wait<0>();")
    found = faults(launch, module(code, "check"), "copy", 1, 64, array(np.zeros((1, 64, 4), f32)), fresh((1, 64, 4)))
    assert [report.kind for report in found if "copies asynchronously" in report.text] == ["RACE"]


@needs_emulator
def test_a_copy_from_nowhere_is_a_fault_of_its_own_line():
    code = COPY.replace("t % 3 == 2 ? nullptr : from", "from + (1ll << 44)").replace("WORDS", "1")
    code = code.replace("WAIT", "copy_async_wait<0>();").replace("REST", "")
    (found,) = faults(launch, module(code), "copy", 1, 64, array(np.zeros(64, f32)), fresh(64))
    assert (found.kind, found.line) == ("FAULT", line_of(code, "COPY"))


@needs_emulator
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_a_copy_that_nobody_waits_for_is_reported(mode):
    x = np.zeros((2, 64, 1), f32)
    code = COPY.replace("WORDS", "1").replace("WAIT", "").replace("REST", "")
    found = faults(launch, module(code, mode), "copy", 2, 64, array(x), fresh(x.shape))
    assert {report.kind for report in found} <= {"COPY-PENDING", "RACE"}  # and the second block begins anew
    (pending,) = (report for report in found if report.kind == "COPY-PENDING")
    assert pending.line == line_of(code, "COPY") and pending.thread == (0, 0, 0)
    assert pending.text.endswith("has not waited for its copy of 4 bytes")
    found = faults(
        launch, module(code.replace("copy_async_commit();", ""), mode), "copy", 1, 64, array(x), fresh(x.shape)
    )
    (pending,) = (report for report in found if report.kind == "COPY-PENDING")
    assert pending.text.endswith("which is in no group: copy_async_commit()")


STAGES = """extern "C" __global__ void stages(const float* __restrict__ x, float* __restrict__ y, int steps) {
    __shared__ float s[3][64];
    int t = threadIdx.x;
    for (int k = 0; k < 2; k++) {
        copy_async<4>(&s[k][t], x + k * 64 + t, k < steps);
        copy_async_commit();
    }
    float sum = 0;
    for (int k = 0; k < steps; k++) {
        copy_async_wait<1>();
        __syncthreads();
        copy_async<4>(&s[(k + 2) % 3][t], x + (k + 2) * 64 + t, k + 2 < steps);
        copy_async_commit();
        sum += (k + 1) * s[k % 3][t ^ 1];
    }
    copy_async_wait<0>();
    y[t] = sum;
}"""


@needs_emulator
@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("order", ORDERS)
def test_three_stages_with_one_barrier_each(mode, order):
    x = np.random.default_rng(4).integers(-50, 50, (7, 64)).astype(f32)
    y = fresh(64)
    with options(order=order, seed=2):
        launch(module(STAGES, mode), "stages", 1, 64, array(x), y, np.int32(7))
    expected = (x * np.arange(1, 8)[:, None]).sum(0).reshape(32, 2)[:, ::-1].ravel()
    np.testing.assert_array_equal(np.asarray(y), expected)


@needs_emulator
@pytest.mark.parametrize("order", ORDERS)
def test_a_stage_too_few_is_found(order):
    code = STAGES.replace("[3]", "[2]").replace("% 3", "% 2")
    x = np.ones((7, 64), f32)
    with options(order=order, seed=2):
        found = faults(launch, module(code, "check"), "stages", 1, 64, array(x), fresh(64), np.int32(7))
    assert "RACE" in {report.kind for report in found}


@needs_emulator
def test_copies_are_counted_both_ways():
    code = COPY.replace("WORDS", "4").replace("WAIT", "copy_async_wait<0>();").replace("REST", "")
    compiled, x = module(code, "check"), np.zeros((1, 64, 4), f32)
    with options(counters=True):
        launch(compiled, "copy", 1, 64, array(x), fresh(x.shape))
    rows = [row for row in compiled.counters().rows if row.line == line_of(code, "COPY")]
    counts = {(row.memory, row.operation): (row.accesses, row.requests, row.units) for row in rows}
    # 43 of 64 threads read 16 bytes; every thread writes 16, by 8 lanes at a time
    assert counts["shared", "store"] == (64, 2, 8)
    assert counts["global", "load"][:2] == (43, 2)


# ---------------------------------------------------------------- the source


def test_the_emulator_sees_no_ptx_and_every_line_keeps_its_number():
    left = kernel_source.without_ptx(INSTRUCTIONS)
    assert "asm" in INSTRUCTIONS and not re.search(r"\basm\b", kernel_source.without_comments(left))
    assert "cs_multiply_add_tf32(d, a, b);" in left and "__trap" not in left
    there, here = left.split("\n"), INSTRUCTIONS.split("\n")
    assert len(there) == len(here) and all(a in ("", b) for a, b in zip(there, here))


CONDITIONS = """
#ifdef CUDASIM
emulator
#if OTHER > 1
emulator, perhaps
#else
emulator, perhaps
#endif
#elif __CUDA_ARCH__ >= 800
card
#if OTHER
card
#endif
#else // otherwise
card
#endif
# ifndef  CUDASIM
card
#else
emulator
#endif
#ifdef CUDASIMULATOR
perhaps
#else
perhaps
#endif
"""


def test_conditions_about_the_emulator_are_followed_and_others_left_to_the_compiler():
    left = kernel_source.without_ptx(CONDITIONS).split("\n")
    for line, before in zip(left, CONDITIONS.split("\n"), strict=True):
        assert line == ("" if before == "card" else before)


def test_ptx_elsewhere_is_refused():
    code = 'extern "C" __global__ void k(float* y) {\n#ifdef CARD\n    asm("exit;");\n#endif\n}\n'
    with pytest.raises(KernelError, match=r"kernels/mine.cu:3: not allowed in kernels: inline assembly: .*instr"):
        compiler.compile_kernels(f'#line 1 "kernels/mine.cu"\n{code}')


def test_no_other_kernel_file_has_ptx():
    files = [file for kind in ("*.cu", "*.cuh") for file in sources.kernel_folder().rglob(kind)]
    with_ptx = [file.name for file in files if "asm" in kernel_source.without_comments(file.read_text(), strings=True)]
    assert with_ptx == ["instructions.cuh"]


def test_kernels_that_use_them_need_threads_that_wait():
    helper = "struct Sums { __device__ void add(float (&d)[4], const float (*a)[8]) const { CALL; } };\n"
    entry = 'extern "C" __global__ void k(float* y) { Sums s; float d[4]; s.add(d, 0); }\n'
    for call in ("multiply_add_tf32(d, d, d)", "copy_async<4>(y, d, true)", "copy_async_wait<0>()", "__syncwarp()"):
        assert kernel_source.entries(INSTRUCTIONS + helper.replace("CALL", call) + entry)[0].waits
    assert not kernel_source.entries(INSTRUCTIONS + helper.replace("CALL", "tf32(d[0])") + entry)[0].waits


def test_headers_include_headers_each_once():
    try:
        for name, text in (("a.cuh", '#include "b.cuh"\nin a'), ("b.cuh", "in b\n"), ("relu", "in relu")):
            sources.replace_source(name, text)
        sources.replace_source(
            "relu", ' # include "a.cuh"\n#include "b.cuh"  // again\nin relu\n#include "common.cuh"\n'
        )
        lines = sources.full_source("relu").split('#line 1 "kernels/relu.cu"\n')[1].split("\n")
    finally:
        for name in ("a.cuh", "b.cuh", "relu"):
            sources.replace_source(name, None)
    assert [line for line in lines if line.startswith("in ")] == ["in b", "in a", "in relu"]
    assert not [line for line in lines if "include" in line or "Layout" in line]  # common.cuh stands before every file
    text = sources.line_marker("kernels/relu.cu") + "\n" + "\n".join(lines)
    assert kernel_source.position(text, text.index("in a")) == ("kernels/a.cuh", 2)
    assert kernel_source.position(text, text.index("in b")) == ("kernels/b.cuh", 1)
    assert kernel_source.position(text, text.index("in relu")) == ("kernels/relu.cu", 3)


# ---------------------------------------------------------------- what a card gets


def ptx(code, architecture):
    """PTX, by NVRTC."""
    library, program, size = nvrtc.library(), ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"test.cu", 0, None, None)
    options = (ctypes.c_char_p * 2)(b"--std=c++17", f"-arch={architecture}".encode())
    assert library.nvrtcCompileProgram(program, 2, options) == 0
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, text)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return text.value.decode()


def nvrtc_missing():
    try:
        nvrtc.library()
    except MissingDependencyError as error:
        return str(error)
    return None


@pytest.mark.skipif(nvrtc_missing() is not None, reason=str(nvrtc_missing()))
@pytest.mark.parametrize("architecture, has", [("compute_75", False), ("compute_80", True), ("compute_100", True)])
def test_the_instructions_of_a_card(architecture, has):
    copies = "".join(COPY.replace("void copy", f"void copy{words}").replace("WORDS", str(words)) for words in (1, 2, 4))
    copies = copies.replace("WAIT", "copy_async_wait<0>();").replace("REST", "")
    common = (sources.kernel_folder() / "common.cuh").read_text(encoding="utf-8")
    text = ptx(common + INSTRUCTIONS + MULTIPLY.replace("ROUND", "tf32") + copies, architecture)
    for instruction in (
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
        "cvt.rna.tf32.f32",
        r"cp.async.ca.shared.global \[%r\d+\], \[%rd\d+\], 4, %r\d+;",
        r"cp.async.ca.shared.global \[%r\d+\], \[%rd\d+\], 8, %r\d+;",
        r"cp.async.cg.shared.global \[%r\d+\], \[%rd\d+\], 16, %r\d+;",
        "cp.async.commit_group;",
        "cp.async.wait_group 0;",
    ):
        assert bool(re.search(instruction, text)) == has, instruction
    assert ("trap;" in text) != has
