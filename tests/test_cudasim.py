"""The emulator: what kernels can do on it, and how it ends those that fail.  What it finds: test_cudasim_checks.py."""

import atexit
import ctypes
import math
import os
import re
import resource
import shutil
import signal
import tempfile
import threading
import time
from functools import cache

import numpy as np
import pytest
from emulated import array, fresh, launch

from minigrad.cudasim import assembly, compiler, settings
from minigrad.cudasim import source as kernel_source
from minigrad.cudasim.module import Area, RawModule
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import ArgumentError, DeviceError, KernelError

needs_compiler = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
f32, f64, i32, i64 = np.float32, np.float64, np.int32, np.int64
modes = pytest.mark.parametrize("mode", settings.MODES)
orders = pytest.mark.parametrize("order", ORDERS)


def module(code, mode="fast", **kwargs):
    return RawModule('#line 1 "kernels/test.cu"\n' + code, mode=mode, **kwargs)


def line_of(code, mark):
    """The number of the line that ends in `// mark`."""
    return 1 + next(i for i, line in enumerate(code.split("\n")) if line.endswith(f"// {mark}"))


def faults(call, *args, **kwargs):
    """The reports of a launch that must fail."""
    with pytest.raises(KernelError) as caught:
        call(*args, **kwargs)
    assert caught.value.reports, caught.value
    return caught.value.reports


# ---------------------------------------------------------------- settings


def test_the_time_limit_from_outside(monkeypatch):
    for text, seconds in ((None, 600), ("7.5", 7.5), ("inf", math.inf)):
        monkeypatch.setattr(settings, "_current", None)
        if text:
            monkeypatch.setenv("MINIGRAD_CUDASIM_TIME_LIMIT", text)
        assert settings.current().time_limit == seconds
    for text in ("", "soon", "0", "-3", "nan"):
        monkeypatch.setattr(settings, "_current", None)
        monkeypatch.setenv("MINIGRAD_CUDASIM_TIME_LIMIT", text)
        with pytest.raises(ArgumentError, match=f"a time limit is a positive number of seconds, got '{text}'"):
            settings.current()


def test_settings_change_and_come_back():
    before = settings.current()
    with options(mode="check", order="random", seed=7):
        assert (settings.current().mode, settings.current().order, settings.current().seed) == ("check", "random", 7)
        with options(order="reversed"):
            assert (settings.current().mode, settings.current().order) == ("check", "reversed")
        assert settings.current().order == "random"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(settings.current().mode))
        thread.start()
        thread.join()
        assert seen == ["check"]
    assert settings.current() == before


def test_settings_come_back_after_an_error():
    before = settings.current()
    with pytest.raises(ZeroDivisionError), options(order="reversed"):
        _ = 1 / 0
    assert settings.current() == before


@pytest.mark.parametrize(
    "bad",
    [{"mode": "quick"}, {"order": "up"}, {"max_reports": 0}, {"time_limit": 0}, {"time_limit": math.nan}]
    + [{"blocks": range(5, 0, -1)}, {"blocks": 3}, {"memory_limit": -1}, {"colour": "red"}],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ArgumentError, match=f"cudasim: .*{next(iter(bad))}"), options(**bad):
        pass


def test_settings_from_the_environment(monkeypatch):
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setenv("MINIGRAD_CUDASIM_MODE", "check")
    monkeypatch.setenv("MINIGRAD_CUDASIM_ORDER", "reversed")
    assert (settings.current().mode, settings.current().order) == ("check", "reversed")
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setenv("MINIGRAD_CUDASIM_MODE", "slow")
    with pytest.raises(ArgumentError, match="'slow'"):
        settings.current()
    monkeypatch.setattr(settings, "_current", None)


# ---------------------------------------------------------------- the text of a kernel

SEVERAL = """
#define MEET __syncthreads()
template <class T> __device__ T through_a_helper(T v) { return __shfl_xor_sync(0xffffffffu, v, 1); }
struct Tile { __device__ void load() { MEET; } };
// extern "C" __global__ void in_a_comment(float* y) { __syncthreads(); }
extern "C" __global__ void plain(float* y) { if (y) for (int i = 0; i < 3; i++) y[i] = 0; /* __syncthreads(); */ }
extern "C" __global__ void __launch_bounds__(64) direct(float* y) { __syncthreads(); }
extern "C" __global__ __launch_bounds__(64, 2)
void by_helper(
    float* y, int n) {
    y[0] = through_a_helper(y[0]);
}
extern "C" __global__ void by_macro(float* y) { MEET; }
extern "C" __global__ void by_method(float* y) { Tile tile; tile.load(); }
"""


def test_entry_points_and_which_of_them_wait():
    found = kernel_source.entries('#line 1 "kernels/several.cu"\n' + SEVERAL)
    assert [(e.name, e.waits) for e in found] == [
        ("plain", False),
        ("direct", True),
        ("by_helper", True),
        ("by_macro", True),
        ("by_method", True),
    ]
    lines = SEVERAL.split("\n")
    assert {e.file for e in found} == {"kernels/several.cu"}
    assert [lines[e.line - 1].startswith('extern "C"') for e in found] == [True] * 5
    assert found[2].line == found[1].line + 1


def test_a_source_without_entry_point_is_refused():
    with pytest.raises(KernelError, match=r"kernels/a.cu:3: no entry point"):
        kernel_source.entries('#line 1 "kernels/a.cu"\n__global__ void f(float* y) {}\n\n')


@pytest.mark.parametrize(
    "line, advice",
    [
        ("#include <cmath>", "#include: NVRTC"),
        ("__constant__ float table[4];", "__constant__"),
        ('__device__ void f() { asm volatile("bar.sync 0;"); }', "inline assembly"),
        ("__device__ float f(float x) { return __shfl_down(x, 1); }", "mask"),
        ("__device__ bool f(bool x) { return __any(x); }", "mask"),
        ("texture<float> t;", "texture"),
        ("namespace cg = cooperative_groups;", "cooperative groups"),
        ("__device__ void f() { k<<<1, 1>>>(); }", "launch"),
    ],
)
def test_broken_rules_are_named_with_their_lines(line, advice):
    code = f'#line 1 "kernels/common.cuh"\n// #include\n#line 8 "kernels/a.cu"\n{line}\n'
    with pytest.raises(KernelError, match=rf"kernels/a.cu:8: not allowed in kernels: .*{advice}"):
        kernel_source.check_rules(code)
    kernel_source.check_rules(code.replace(line, "/* " + line + " */"))
    kernel_source.check_rules(code.replace(line, 'const char* text = "' + line.replace('"', "") + '";'))


# ---------------------------------------------------------------- launching

WHERE = """
extern "C" __global__ void where(int* __restrict__ y) {
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int* mine = y + 6 * (thread + blockDim.x * blockDim.y * blockDim.z * block);
    mine[0] = threadIdx.x, mine[1] = threadIdx.y, mine[2] = threadIdx.z;
    mine[3] = blockIdx.x, mine[4] = blockIdx.y, mine[5] = blockIdx.z;
}
extern "C" __global__ void where_waiting(int* __restrict__ y) {
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int* mine = y + 6 * (thread + blockDim.x * blockDim.y * blockDim.z * block);
    __syncthreads();
    mine[0] = threadIdx.x, mine[1] = threadIdx.y, mine[2] = threadIdx.z;
    __syncwarp();
    mine[3] = blockIdx.x, mine[4] = blockIdx.y, mine[5] = blockIdx.z;
}
"""


@needs_compiler
@modes
@orders
@pytest.mark.parametrize("name", ["where", "where_waiting"])
def test_every_thread_knows_where_it_is(mode, order, name):
    y = fresh((4, 2, 3, 4, 2, 8, 6), i32)  # blocks z, y, x, threads z, y, x
    with options(order=order, seed=3):
        launch(module(WHERE, mode), name, (3, 2, 4), (8, 2, 4), y)
    expected = np.stack(np.indices(y.shape[:6])[[5, 4, 3, 2, 1, 0]], -1)
    np.testing.assert_array_equal(y, expected)


ORDER = """
extern "C" __global__ void rank(int* __restrict__ next, int* __restrict__ y) {
    y[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}
extern "C" __global__ void rank_waiting(int* __restrict__ next, int* __restrict__ y) {
    y[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
    __syncthreads();
}
extern "C" __global__ void rank_after_syncwarp(int* __restrict__ next, int* __restrict__ y) {
    __syncwarp(threadIdx.x < 32 ? 0xffffffffu : 0x0000ffffu);
    y[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}
"""


@needs_compiler
@modes
@pytest.mark.parametrize("name", ["rank", "rank_waiting", "rank_after_syncwarp"])
def test_orders(mode, name):
    def order(name_of_order, seed=0):
        y = fresh(5 * 48, i32)
        with options(order=name_of_order, seed=seed):
            launch(module(ORDER, mode), name, 5, 48, array([0], i32), y)
        return list(y)

    everyone = list(range(5 * 48))
    assert order("forward") == everyone
    assert order("reversed") == everyone[::-1]
    shuffled = order("random", 1)
    assert sorted(shuffled) == everyone
    assert shuffled == order("random", 1) != order("random", 2)
    blocks = [number // 48 for number in shuffled[::48]]
    assert sorted(blocks) == [0, 1, 2, 3, 4] and blocks != [0, 1, 2, 3, 4]  # the blocks too
    first_warp = [number for number in shuffled[:48] if number % 48 < 32]
    assert first_warp != sorted(first_warp)


@needs_compiler
@modes
@orders
def test_only_some_blocks(mode, order):
    y = array(np.zeros(10 * 4), i32)
    code = 'extern "C" __global__ void one(int* __restrict__ y) { y[blockIdx.x * blockDim.x + threadIdx.x] += 1; }'
    with options(blocks=range(3, 10, 4), order=order):
        launch(module(code, mode), "one", 10, 4, y)
    np.testing.assert_array_equal(y.reshape(10, 4)[:, 0], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    with options(blocks=range(8, 11)), pytest.raises(ArgumentError, match="grid of 10"):
        launch(module(code, mode), "one", 10, 4, y)


PARAMETERS = """
struct Pair { long long a; double b[2]; };
extern "C" __global__ void parameters(
    const float* __restrict__ f, double* d, const bool* q, const unsigned char* u8, signed char* i8, short* i16,
    const unsigned long long* u64, bool flag, int i, unsigned u, long long l, unsigned long long ul, float x, double y,
    Pair p, float4* v) {
    d[0] = i, d[1] = u, d[2] = l, d[3] = (double)ul, d[4] = x, d[5] = y, d[6] = p.a, d[7] = p.b[1], d[8] = flag;
    d[9] = f[1], d[10] = q[1], d[11] = u8[1], d[12] = i8[1], d[13] = i16[1], d[14] = (double)u64[1], d[15] = v[1].z;
    p.a = 0;
    i = 0;
}
"""


@needs_compiler
@modes
def test_parameters_of_all_types(mode):
    m = module(PARAMETERS, mode)
    assert m.names == ["parameters"]
    assert m.get_function("parameters").parameters == [
        *("const float32*", "float64*", "const bool*", "const uint8*", "int8*", "int16*", "const uint64*"),
        *("bool", "int32", "uint32", "int64", "uint64", "float32", "float64", "V24", "V16*"),
    ]
    d = fresh(16, f64)
    pair = np.array((-5, (0, 6.5)), np.dtype([("a", i64), ("b", f64, 2)]))[()]
    arrays = [array([0, 1.25], f32), d, array([0, 1], bool), array([0, 200], np.uint8), array([0, -3], np.int8)]
    arrays += [array([0, -300], np.int16), array([0, 2**63], np.uint64)]
    scalars = [np.bool_(True), i32(-7), np.uint32(2**32 - 1), i64(-(2**40)), np.uint64(2**63), f32(0.5), f64(1e300)]
    pointers = m.get_function("parameters").parameters
    v = array(np.arange(8), f32)
    # two threads: what one does to its parameters must not reach the other
    values = [*arrays, *scalars, pair, v]
    params = [np.uint64(a.ctypes.data).tobytes() if isinstance(a, np.ndarray) else a.tobytes() for a in values]
    areas = [Area(a.ctypes.data, a.nbytes, True) for a in [*arrays, v]]
    assert len(params) == len(pointers)
    with options(blocks=range(1, 2)):
        m.get_function("parameters").launch((2, 1, 1), (1, 1, 1), params, areas)
    expected = [-7, 2**32 - 1, -(2**40), 2**63, 0.5, 1e300, -5, 6.5, 1, 1.25, 1, 200, -3, -300, 2**63, 6]
    np.testing.assert_array_equal(d, expected)


@needs_compiler
def test_parameters_are_each_threads_own():
    code = 'extern "C" __global__ void own(int n, int* __restrict__ y) { n += 1; y[threadIdx.x] = n; }'
    y = fresh(4, i32)
    launch(module(code), "own", 1, 4, i32(5), y)
    np.testing.assert_array_equal(y, 6)


NOTHING = 'extern "C" __global__ void nothing(int* y, float x) { }'


@needs_compiler
@pytest.mark.parametrize(
    "grid, block, shared_mem, rule",
    [
        ((0, 1, 1), (1, 1, 1), 0, "grid"),
        ((1, 65536, 1), (1, 1, 1), 0, "grid"),
        ((1, 1, 65536), (1, 1, 1), 0, "grid"),
        ((2**31, 1, 1), (1, 1, 1), 0, "grid"),
        ((1, 1, 1), (1025, 1, 1), 0, "1024"),
        ((1, 1, 1), (32, 33, 1), 0, "1024"),
        ((1, 1, 1), (1, 1, 65), 0, "64"),
        ((1, 1, 1), (0, 1, 1), 0, "block"),
        ((1, 1, 1), (1, 1, 1), 48 * 1024 + 1, "shared memory"),
    ],
)
def test_launches_that_cuda_would_refuse(grid, block, shared_mem, rule):
    function = module(NOTHING).get_function("nothing")
    (report,) = faults(function.launch, grid, block, [bytes(8), bytes(4)], [], shared_mem)
    assert (report.kind, report.file, report.line) == ("LAUNCH", "kernels/test.cu", 1) and rule in report.text


@needs_compiler
def test_wrong_arguments_are_refused():
    function = module(NOTHING).get_function("nothing")
    (report,) = faults(function.launch, (1, 1, 1), (1, 1, 1), [bytes(8)])
    assert "1 arguments for 2 parameters: int32*, float32" in report.text
    (report,) = faults(function.launch, (1, 1, 1), (1, 1, 1), [bytes(8), bytes(8)])
    assert "argument 1 has 8 bytes, parameter float32 has 4" in report.text
    with pytest.raises(KernelError, match="no kernel 'something'.*nothing"):
        module(NOTHING).get_function("something")


# ---------------------------------------------------------------- shared memory and barriers

REVERSE = """
extern "C" __global__ void fixed(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float s[96];
    s[threadIdx.x] = x[blockIdx.x * 96 + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 96 + threadIdx.x] = s[95 - threadIdx.x];
}
extern "C" __global__ void dynamic(const float* __restrict__ x, float* __restrict__ y) {
    extern __shared__ float s[];
    s[threadIdx.x] = x[blockIdx.x * 96 + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 96 + threadIdx.x] = s[95 - threadIdx.x];
}
template <int N> __device__ float through(float value) {
    __shared__ float s[N];
    s[threadIdx.x] = value;
    __syncthreads();
    return s[N - 1 - threadIdx.x];
}
extern "C" __global__ void helper(const float* __restrict__ x, float* __restrict__ y) {
    y[blockIdx.x * 96 + threadIdx.x] = through<96>(x[blockIdx.x * 96 + threadIdx.x]);
}
"""


@needs_compiler
@modes
@orders
@pytest.mark.parametrize("name", ["fixed", "dynamic", "helper"])
def test_shared_memory(mode, order, name):
    x, y = array(np.arange(5 * 96), f32), fresh(5 * 96)
    with options(order=order):
        launch(module(REVERSE, mode), name, 5, 96, x, y, shared_mem=96 * 4 if name == "dynamic" else 0)
    np.testing.assert_array_equal(y.reshape(5, 96), x.reshape(5, 96)[:, ::-1])


@needs_compiler
@modes
@orders
def test_votes_of_a_block(mode, order):
    code = """
    extern "C" __global__ void votes(const int* __restrict__ x, int* __restrict__ y) {
        int i = threadIdx.x;
        y[i] = __syncthreads_count(x[i] > 2);
        y[i] += 1000 * __syncthreads_or(x[i] == 40) + 2000 * __syncthreads_and(x[i] >= 0);
    }"""
    for last, expected in ((40, 38 + 1000 + 2000), (-1, 37), (7, 38 + 2000)):
        x, y = array([*range(40), last], i32), fresh(41, i32)
        with options(order=order):
            launch(module(code, mode), "votes", 1, 41, x, y)
        np.testing.assert_array_equal(y, expected)


@needs_compiler
def test_shared_memory_is_poisoned_before_every_block():
    code = """
    extern "C" __global__ void left(unsigned* __restrict__ y) {
        __shared__ unsigned s[2];
        extern __shared__ unsigned d[];
        y[2 * blockIdx.x] = s[1], y[2 * blockIdx.x + 1] = d[3];
        s[1] = 5, d[3] = 5;
    }"""
    y = fresh(4, np.uint32)
    launch(module(code), "left", 2, 1, y, shared_mem=16)
    np.testing.assert_array_equal(y, 0xFFFFFFFF)
    with options(poison=False):
        launch(module(code), "left", 2, 1, y, shared_mem=16)
    np.testing.assert_array_equal(y, 5)


@needs_compiler
@modes
@pytest.mark.parametrize("array_name, index, shared_mem", [("first", 13, 0), ("second", 9, 0), ("dynamic", 16, 64)])
def test_writes_behind_shared_arrays(mode, array_name, index, shared_mem):
    code = f"""
    extern "C" __global__ void behind(int n, float* y) {{
        __shared__ float first[12], second[8];
        extern __shared__ float dynamic[];
        float* p = {array_name} + n;
        first[0] = 1, second[0] = 1;
        if (blockIdx.x == 1) *p = 2; // HERE
        y[0] = first[0] + second[0];
    }}"""
    (report,) = faults(launch, module(code, mode), "behind", 3, 1, i32(index), fresh(1), shared_mem=shared_mem)
    assert report.block == (1, 0, 0) and f"shared array '{array_name}'" in report.text
    if mode == "check":
        assert (report.kind, report.thread, report.line) == ("OOB-SHARED", (0, 0, 0), line_of(code, "HERE"))
    else:
        assert report.kind == "SHARED-OVERRUN"


@pytest.mark.parametrize(
    "symbol, kernel, name",
    [
        ("_ZZ5sgemmE2As", "sgemm", "As"),
        ("_ZZ7convE2xE2As", "convE2x", "As"),
        ("_ZZ4tileIfEvPT_E1s", "", "s"),
        ("_ZZ6helperPfE4warp", "", "warp"),
        ("_ZZ5sgemmE1s_0", "sgemm", "s"),
    ],
)
def test_names_of_shared_arrays(symbol, kernel, name):
    assert assembly._demangle(symbol) == (kernel, name)


@needs_compiler
def test_static_and_dynamic_shared_memory_must_fit_together():
    code = 'extern "C" __global__ void big(float* y) { __shared__ float s[12000]; s[0] = 1; y[0] = s[0]; }'
    y = fresh(1)
    launch(module(code), "big", 1, 1, y, shared_mem=1152)
    assert y[0] == 1
    (report,) = faults(launch, module(code), "big", 1, 1, y, shared_mem=1153)
    assert report.kind == "LAUNCH" and "48000" in report.text


# ---------------------------------------------------------------- warps

SHUFFLE = """
extern "C" __global__ void shuffle(const T* __restrict__ x, T* __restrict__ y, int amount, int width) {
    int i = threadIdx.x;
    y[i] = HOW(0xffffffffu, x[i], amount, width);
}"""
SHUFFLES = ["__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"]


@cache
def shuffles(c_type):
    code = (SHUFFLE.replace("shuffle", f"with{how}").replace("HOW", how) for how in SHUFFLES)
    return module("".join(code), options=(f"-DT={c_type}",))


def shuffled(how, x, amount, width):
    """CUDA's definition, lane by lane."""
    result = []
    for i in range(len(x)):
        warp, lane = i // 32 * 32, i % 32
        segment, inside = lane // width * width, lane % width
        if how == "__shfl_sync":
            source = segment + amount % width
        elif how == "__shfl_up_sync":
            source = lane - amount if inside >= amount else lane
        elif how == "__shfl_down_sync":
            source = lane + amount if inside + amount < width else lane
        else:
            source = lane ^ amount if lane ^ amount < segment + width else lane
        result.append(x[warp + source])
    return np.array(result, x.dtype)


@needs_compiler
@pytest.mark.parametrize("how", SHUFFLES)
@pytest.mark.parametrize(
    "c_type, dtype", [("int", i32), ("float", f32), ("double", f64), ("unsigned long long", np.uint64)]
)
def test_shuffles(how, c_type, dtype):
    x = array(np.random.default_rng(0).integers(0, 2**20, 64), dtype)
    if dtype == np.uint64:
        x += np.uint64(2**60)
    for order, amount, width in (("forward", 1, 32), ("reversed", 16, 32), ("random", 3, 8), ("forward", 5, 16)):
        y = fresh(64, dtype)
        with options(order=order):
            launch(shuffles(c_type), f"with{how}", 1, 64, x, y, i32(amount), i32(width))
        np.testing.assert_array_equal(y, shuffled(how, x, amount, width))


@needs_compiler
@modes
@orders
def test_votes_and_sums_of_warps(mode, order):
    code = """
    extern "C" __global__ void votes(const int* __restrict__ x, unsigned* __restrict__ y) {
        int i = threadIdx.x, lane = i % 32;
        unsigned bits = __ballot_sync(0xffffffffu, x[i] & 1);
        int sum = x[i];
        for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
        y[4 * i] = bits;
        y[4 * i + 1] = __any_sync(0xffffffffu, x[i] == 5) + 2 * __all_sync(0xffffffffu, x[i] >= 0);
        y[4 * i + 1] += 4 * (__activemask() == 0xffffffffu);
        y[4 * i + 2] = __shfl_sync(0xffffffffu, sum, 0);
        unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;  // the halves of a warp on their own
        if (lane < 16) y[4 * i + 3] = __shfl_xor_sync(0x0000ffffu, i, 1) + __popc(__ballot_sync(half, lane == 3));
        else y[4 * i + 3] = __shfl_xor_sync(0xffff0000u, i, 2) + __popc(__ballot_sync(half, lane > 20));
    }"""
    x = array(np.random.default_rng(0).integers(0, 9, 96), i32)
    x[40] = -1
    x[64:][x[64:] == 5] = 4
    y = fresh((96, 4), np.uint32)
    with options(order=order, seed=9):
        launch(module(code, mode), "votes", 1, 96, x, y)
    for w in range(3):
        warp, own = x[32 * w : 32 * w + 32], y[32 * w : 32 * w + 32]
        i = np.arange(32 * w, 32 * w + 32)
        np.testing.assert_array_equal(own[:, 0], sum(1 << l for l in range(32) if warp[l] % 2))
        np.testing.assert_array_equal(own[:, 1], (5 in warp) + 2 * (warp >= 0).all() + 4)
        np.testing.assert_array_equal(own[:, 2], np.uint32(warp.sum()))
        np.testing.assert_array_equal(own[:, 3], np.where(i % 32 < 16, (i ^ 1) + 1, (i ^ 2) + 11))


@needs_compiler
def test_a_warp_that_is_not_full():
    code = """
    extern "C" __global__ void part(unsigned* __restrict__ y) {
        unsigned lanes = __activemask();
        y[threadIdx.x] = __ballot_sync(lanes, 1);
    }"""
    y = fresh(40, np.uint32)
    launch(module(code), "part", 1, 40, y)
    np.testing.assert_array_equal(y, [0xFFFFFFFF] * 32 + [0xFF] * 8)


# ---------------------------------------------------------------- atomics

ATOMICS = """
extern "C" __global__ void atomics(const T* __restrict__ x, T* __restrict__ y, T* __restrict__ old) {
    T value = x[threadIdx.x];
    old[threadIdx.x] = atomicAdd(&y[0], value);
    atomicExch(&y[1], value);
#ifndef REAL_TYPE
    atomicMin(&y[2], value);
    atomicMax(&y[3], value);
    atomicAnd(&y[4], value);
    atomicOr(&y[5], value);
    atomicXor(&y[6], value);
    atomicCAS(&y[7], x[5], value);
#endif
}"""


@needs_compiler
@modes
@pytest.mark.parametrize(
    "c_type, dtype", [("int", i32), ("unsigned", np.uint32), ("unsigned long long", np.uint64), ("float", f32)]
)
def test_atomics(mode, c_type, dtype):
    m = module(ATOMICS, mode, options=(f"-DT={c_type}", *(["-DREAL_TYPE"] if dtype == f32 else [])))
    x = array(np.random.default_rng(0).integers(1, 2**16, 100), dtype)
    y, old = array([7, 0, x[0], x[0], x[0], 0, 0, x[5]], dtype), fresh(100, dtype)
    launch(m, "atomics", 1, 100, x, y, old)
    assert y[0] == 7 + x.sum(dtype=dtype)
    np.testing.assert_array_equal(old, 7 + np.concatenate([[0], np.cumsum(x)[:-1]]).astype(dtype))
    assert y[1] == x[-1]
    if dtype != f32:
        assert (y[2], y[3]) == (x.min(), x.max())
        expected = [np.bitwise_and.reduce(x), np.bitwise_or.reduce(x), np.bitwise_xor.reduce(x), x[0]]
        np.testing.assert_array_equal(y[4:], np.array(expected, dtype))


@needs_compiler
def test_atomics_that_wrap_around():
    code = """
    extern "C" __global__ void wrap(unsigned* __restrict__ y) {
        atomicInc(&y[0], 3);
        atomicDec(&y[1], 3);
        atomicAdd((int*)&y[2], 1);
        atomicSub(&y[3], 1u);
    }"""
    for mode in settings.MODES:
        y = array([2, 1, 0x7FFFFFFE, 1], np.uint32)
        launch(module(code, mode), "wrap", 1, 4, y)
        np.testing.assert_array_equal(y, [2, 1, 0x80000002, 0xFFFFFFFD])


# ---------------------------------------------------------------- math

MATH = """
extern "C" __global__ void math(const REAL* __restrict__ x, REAL* __restrict__ y) {
    static_assert(sizeof(exp(REAL(1))) == sizeof(REAL) && sizeof(rsqrt(REAL(1))) == sizeof(REAL));
    static_assert(sizeof(pow(REAL(1), REAL(1))) == sizeof(REAL) && sizeof(fmax(REAL(1), REAL(1))) == sizeof(REAL));
    static_assert(sizeof(max(1.0f, 1.0)) == 8 && sizeof(fma(REAL(1), REAL(1), REAL(1))) == sizeof(REAL));
    REAL v = x[threadIdx.x];
    REAL* o = y + 16 * threadIdx.x;
    o[0] = exp(v), o[1] = log(v), o[2] = sqrt(v), o[3] = rsqrt(v), o[4] = pow(v, REAL(0.75)), o[5] = tanh(v);
    o[6] = fabs(-v), o[7] = fmax(v, REAL(1)), o[8] = fmin(v, REAL(1)), o[9] = fma(v, v, REAL(1)), o[10] = floor(v);
    o[11] = ceil(v), o[12] = expm1(v), o[13] = log1p(v), o[14] = erf(v), o[15] = cos(v);
}"""


@needs_compiler
@modes
@pytest.mark.parametrize("c_type, dtype", [("float", f32), ("double", f64)])
def test_math(mode, c_type, dtype):
    x = array(np.linspace(0.07, 3.9, 37), dtype)
    y = fresh((37, 16), dtype)
    launch(module(MATH, mode, options=(f"-DREAL={c_type}",)), "math", 1, 37, x, y)
    e = np.asarray(x, f64)
    expected = [np.exp(e), np.log(e), np.sqrt(e), 1 / np.sqrt(e), e**0.75, np.tanh(e), e, np.maximum(e, 1)]
    expected += [np.minimum(e, 1), e * e + 1, np.floor(e), np.ceil(e), np.expm1(e), np.log1p(e)]
    expected += [np.array([math.erf(v) for v in e]), np.cos(e)]
    np.testing.assert_allclose(y, np.stack(expected, 1), rtol=3 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@needs_compiler
def test_math_of_special_values():
    code = """
    extern "C" __global__ void special(const double* __restrict__ x, double* __restrict__ y) {
        double nan = x[0], inf = x[1];
        float f = (float)nan;
        y[0] = fmax(nan, 1.0) + 10 * fmax(1.0, nan) + 100 * fmin(nan, 2.0) + 1000 * fmin(2.0, nan);
        y[1] = isnan(nan) + 10 * isnan(inf) + 100 * isinf(-inf) + 1000 * isfinite(nan) + 10000 * isnan(f);
        y[2] = max(3, 4) + 10 * min(3u, 4u) + 100 * max(-1LL, 2LL) + 1000 * (max(-1, 1u) == 0xffffffffu);
        y[3] = abs(-3) + 10 * abs(-2.5f) + 100 * abs(-4LL);
        y[4] = __saturatef(f) + __saturatef(2.0f);
        y[4] += 10 * (__float2int_rn(2.5f) + __float2int_rz(-2.5f) + __float2int_rd(-2.5f));
        y[5] = __float2int_rz(3e9f) == 2147483647 && __float2int_rz(f) == 0 && __float2uint_rz(-1.0f) == 0;
    }"""
    x, y = array([np.nan, np.inf], f64), fresh(6, f64)
    launch(module(code), "special", 1, 1, x, y)
    np.testing.assert_array_equal(y, [1 + 10 + 200 + 2000, 1 + 100 + 10000, 4 + 30 + 200 + 1000, 428, 1 + 10 * -3, 1])


@needs_compiler
def test_integer_intrinsics():
    code = """
    extern "C" __global__ void bits(unsigned a, unsigned b, unsigned long long p, unsigned long long q,
                                    unsigned long long* __restrict__ y) {
        y[0] = __umulhi(a, b), y[1] = __umul64hi(p, q), y[2] = (unsigned)__mulhi((int)a, (int)b);
        y[3] = (unsigned long long)__mul64hi((long long)p, (long long)q);
        y[4] = __popc(a), y[5] = __clz((int)b), y[6] = __ffs((int)a), y[7] = __brev(a);
        y[8] = __popcll(p), y[9] = __clzll(4), y[10] = __float_as_uint(1.5f);
        y[11] = (unsigned)__float_as_int(__int_as_float(7)), y[12] = __funnelshift_l(a, b, 9);
    }"""
    a, b, p, q = 0xD2511F54, 0x0CD9E8D5, 0xFEDCBA9876543210, 0x8123456789ABCDEF
    y = fresh(13, np.uint64)
    launch(module(code), "bits", 1, 1, np.uint32(a), np.uint32(b), np.uint64(p), np.uint64(q), y)
    signed_p, signed_q, signed_a = p - 2**64, q - 2**64, a - 2**32
    assert [int(v) for v in y] == [
        a * b >> 32,
        p * q >> 64,
        (signed_a * b >> 32) % 2**32,
        (signed_p * signed_q >> 64) % 2**64,
        bin(a).count("1"),
        4,
        3,
        int(f"{a:032b}"[::-1], 2),
        bin(p).count("1"),
        61,
        0x3FC00000,
        7,
        ((b << 32 | a) << 9 >> 32) % 2**32,
    ]


@needs_compiler
@pytest.mark.parametrize("call", ["exp(n)", "min(n, 3LL)", "fmin(n, 3)", "std::exp(x)", "INFINITY", "int32_t(3)"])
def test_what_nvrtc_refuses_is_refused(call):
    code = f'extern "C" __global__ void k(float x, double d, int n, double* y) {{\n    y[0] = {call};\n}}'
    with pytest.raises(KernelError, match=r"kernels/test.cu:2:.*error"):
        module(code)


@needs_compiler
@modes
def test_small_floats_flush_to_zero_and_doubles_do_not(mode):
    code = """
    extern "C" __global__ void half(const REAL* __restrict__ x, REAL* __restrict__ y) {
        y[threadIdx.x] = x[threadIdx.x] / 2;
    }"""
    for c_type, dtype in (("float", f32), ("double", f64)):
        tiny = np.finfo(dtype).tiny
        x, y = array([tiny, tiny / 64, 1], dtype), fresh(3, dtype)
        launch(module(code, mode, options=(f"-DREAL={c_type}",)), "half", 1, 3, x, y)
        np.testing.assert_array_equal(y, [0, 0, 0.5] if dtype == f32 else [tiny / 2, tiny / 128, 0.5])
    assert np.float32(1e-38) * np.float32(0.01) > 0  # and NumPy's are as before


# ---------------------------------------------------------------- printf

PRINTS = """
extern "C" __global__ void prints(int n, float* y) {
    if (threadIdx.x == 0) printf("block %d of %s: %5.2f %lld\\n", blockIdx.x, "three", 1.5, 1LL << 40);
    if (n > 0 && blockIdx.x == 1) assert(threadIdx.x < n); // HERE
    if (threadIdx.x == 0) y[blockIdx.x] = 0;
}"""


@needs_compiler
@modes
def test_printf_comes_out_in_order(mode, capsys):
    print("before")
    launch(module(PRINTS, mode), "prints", 3, 1, i32(0), fresh(3))
    print("after")
    lines = [f"block {block} of three:  1.50 1099511627776" for block in range(3)]
    assert capsys.readouterr().out.split("\n") == ["before", *lines, "after", ""]


@needs_compiler
@modes
def test_printf_before_a_fault_is_kept(mode, capsys):
    (report,) = faults(launch, module(PRINTS, mode), "prints", 3, 8, i32(5), array([0, 0, 0], f32))
    assert (report.kind, report.line, report.block, report.thread) == (
        *("ASSERT", line_of(PRINTS, "HERE")),
        *((1, 0, 0), (5, 0, 0)),
    )
    assert "threadIdx.x < n" in report.text
    assert re.findall(r"block \d", capsys.readouterr().out) == ["block 0", "block 1"]


@needs_compiler
def test_too_much_printf_is_cut(capsys):
    code = """
    extern "C" __global__ void much(int n) {
        for (int i = 0; i < n; i++) printf("%07d\\n", i);
    }"""
    launch(module(code), "much", 1, 1, i32(200_000))
    out = capsys.readouterr().out
    assert len(out) == 2**20 and out.startswith("0000000\n0000001\n") and out.endswith("the rest is lost]\n")
    launch(module(code), "much", 1, 1, i32(1))
    assert capsys.readouterr().out == "0000000\n"


# ---------------------------------------------------------------- faults: never a dead process

FAULTY = """
__device__ __noinline__ int deeper(volatile int* p, int n) {
    volatile int a[100]; // DEEP
    a[n % 100] = n;
    return n > 100000000 ? 0 : deeper(a, n + 1) + a[0];
}
extern "C" __global__ void deep(int* __restrict__ y) {
    if (threadIdx.x == 2 && blockIdx.x == 1) y[0] = deeper(y, 1);
}
extern "C" __global__ void deep_waiting(int* __restrict__ y) {
    __syncthreads();
    if (threadIdx.x == 2 && blockIdx.x == 1) y[0] = deeper(y, 1);
}
extern "C" __global__ void wild(int* __restrict__ y) {
    if (threadIdx.x == 2 && blockIdx.x == 1)
        y[3000000000000ll] = 1; // WILD
}
extern "C" __global__ void null(int* __restrict__ y) {
    int* p = nullptr;
    if (threadIdx.x == 2 && blockIdx.x == 1)
        p[2] = 1; // NULL
}
extern "C" __global__ void divide(int* __restrict__ y) {
    if (threadIdx.x == 2 && blockIdx.x == 1)
        y[0] = 1000 / y[1]; // DIVIDE
}
extern "C" __global__ void trap(int* __restrict__ y) {
    if (threadIdx.x == 2 && blockIdx.x == 1)
        __trap(); // TRAP
}
extern "C" __global__ void forever(int* __restrict__ y) {
    volatile int on = 1;
    if (threadIdx.x == 2 && blockIdx.x == 1)
        while (on) { } // FOREVER
}
extern "C" __global__ void forever_waiting(int* __restrict__ y) {
    volatile int on = blockIdx.x;
    while (on) __syncthreads(); // FOREVER_WAITING
}
extern "C" __global__ void forever_storing(int* __restrict__ y) {
    if (threadIdx.x == 2 && blockIdx.x == 1)
        for (;;) *(volatile int*)y += 1; // FOREVER_STORING
}
extern "C" __global__ void good(int* __restrict__ y) { y[threadIdx.x] = threadIdx.x; }
"""


@needs_compiler
@modes
@orders
@pytest.mark.parametrize(
    "name, mark, kinds, text",
    [
        ("deep", "DEEP", ["STACK-OVERFLOW"], "local variables"),
        ("deep_waiting", "DEEP", ["STACK-OVERFLOW"], "local variables"),
        ("wild", "WILD", ["FAULT", "OOB-GLOBAL"], "far from every array|at byte 12000000000000 of argument 0"),
        ("null", "NULL", ["FAULT", "OOB-GLOBAL"], "null pointer"),
        ("divide", "DIVIDE", ["FAULT", "DIVISION"], "by zero|by 0"),
        ("trap", "TRAP", ["ASSERT", "ASSERT"], "trap"),
        ("forever", "FOREVER", ["TIME-LIMIT"], "0.2 s"),
        ("forever_storing", "FOREVER_STORING", ["TIME-LIMIT"], "0.2 s"),
    ],
)
def test_faults_come_back_as_errors(mode, order, name, mark, kinds, text):
    m, y = module(FAULTY, mode), array(np.zeros(8), i32)
    with options(order=order, time_limit=0.2 if name.startswith("forever") else 60.0):
        report = faults(launch, m, name, 3, 8, y)[-1]
    assert (report.file, report.block, report.thread) == ("kernels/test.cu", (1, 0, 0), (2, 0, 0)), report
    assert report.kind == kinds[mode == "check" and len(kinds) > 1] and re.search(text, report.text), report
    assert abs(report.line - line_of(FAULTY, mark)) <= (3 if mark == "DEEP" else 0), report
    launch(m, "good", 1, 8, y)  # and the module goes on
    np.testing.assert_array_equal(y, range(8))


@needs_compiler
@modes
def test_endless_waiting_is_ended(mode):
    m, y = module(FAULTY, mode), array(np.zeros(8), i32)
    start = time.perf_counter()
    with options(time_limit=0.2):
        (report,) = faults(launch, m, "forever_waiting", 2, 8, y)
    assert 0.2 <= time.perf_counter() - start < 10
    assert (report.kind, report.line, report.block) == ("TIME-LIMIT", line_of(FAULTY, "FOREVER_WAITING"), (1, 0, 0))
    launch(m, "good", 1, 8, y)


@needs_compiler
@modes
def test_ctrl_c_ends_a_launch(mode):
    m, y = module(FAULTY, mode), array(np.zeros(8), i32)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            launch(m, "forever", 2, 8, y)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    launch(m, "good", 1, 8, y)
    np.testing.assert_array_equal(y, range(8))


# What must be ended, and its line.  A kernel of 64 threads; x and y are zeros, z is 0.
ENDLESS = {
    "reads": "int s = 0; for (int i = 0; i < 3; i += z) s += x[threadIdx.x]; y[threadIdx.x] = s; // LINE",
    "reads, step 0": "int s = 0; for (int i = 0; i < 3; i += 0) s += x[threadIdx.x]; // LINE\n y[threadIdx.x] = s;",
    "writes": "for (int i = 0; i < 3; i += z) y[threadIdx.x] = i; // LINE",
    "nothing": "if (threadIdx.x == 3)\n while (true); // LINE\n y[threadIdx.x] = 1;",
    "nothing, for": "for (int i = z; i < 10; i += z); // LINE\n y[threadIdx.x] = 1;",
    "arithmetic": "unsigned a = threadIdx.x + 1;\n while (a != 0) a *= 3; // LINE\n y[threadIdx.x] = 1;",
    "mathematics": "double s = 1;\n while (s < 2) s = sqrt(s * 0.5); // LINE\n y[threadIdx.x] = (int)s;",
    "barrier": "while (x[0] == 0) __syncthreads(); // LINE\n y[threadIdx.x] = 1;",
    "shuffle": "int v = 1; while (v) v = __shfl_xor_sync(~0u, v, 1); // LINE\n y[threadIdx.x] = 1;",
    "printf": 'while (x[0] == 0) printf("%d", threadIdx.x); // LINE',
    "atomic": "while (x[0] == 0) atomicAdd(y, 1); // LINE",
    "lock": "while (atomicCAS(y, 0, 1) != 0); // LINE\n y[1] = 1; __syncthreads(); atomicExch(y, 0);",
    "flag": "if (threadIdx.x == 0) while (y[0] == 0); // LINE\n if (threadIdx.x == 1) y[0] = 1; __syncthreads();",
    "one of a barrier": "if (threadIdx.x == 7) while (x[0] == 0); // LINE\n __syncthreads(); y[threadIdx.x] = 1;",
}
THREAD = {"nothing": 3, "lock": None, "one of a barrier": 7, "barrier": None, "shuffle": None}  # 0 else; None: any


def endless_source():
    return "\n".join(
        f'extern "C" __global__ void k{i}(int* y, const int* x, int z) {{\n{body.replace("LINE", name)}\n}}'
        for i, (name, body) in enumerate(ENDLESS.items())
    )


@cache
def endless(mode):
    return module(endless_source(), mode)


@needs_compiler
@modes
@pytest.mark.parametrize("name", ENDLESS)
def test_endless_loops_are_ended_with_their_line(mode, name, capsys):
    """In any kind of loop, with counters, and without filling the memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x, y, kernel = array(np.zeros(64), i32), array(np.zeros(64), i32), f"k{list(ENDLESS).index(name)}"
    with options(time_limit=0.1, counters=mode == "check"):
        report = faults(launch, endless(mode), kernel, 1, 64, y, x, i32(0))[-1]
    line, thread = line_of(endless_source(), name), THREAD.get(name, 0)
    assert (report.kind, report.file, report.line) == ("TIME-LIMIT", "kernels/test.cu", line), report
    assert report.block == (0, 0, 0) and (thread is None or report.thread == (thread, 0, 0)), report
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KB


@needs_compiler
@pytest.mark.parametrize("waits", ["", "__syncthreads();"])
@pytest.mark.parametrize(
    "work, line",
    [
        ("volatile int a[8]; volatile int* p = a; for (int i = 0; i < 3000000; i++) p[i] = 7; // LINE", True),
        ("volatile int a[8]; volatile int* p = a; for (int i = 0; i < 200; i++) p[i] = 7; // LINE", False),
        ("__shared__ int s[64]; int* p = s; s[z] = 1; for (int i = 0; i < 200000; i++) p[i] = 7; // LINE", True),
        ("__shared__ int s[64]; int* p = s; s[z] = 1; for (int i = 0; i < 200000; i++) p[-i] = 7; // LINE", True),
        ("volatile int a[1000000]; a[z] = 1; // LINE", False),
    ],
)
def test_wild_writes_of_fast_mode_do_not_end_the_process(waits, work, line):
    """Beyond local and shared arrays lie the emulator's own: a process of its own, which must live on."""
    code = f"""
    extern "C" __global__ void k(int* y, int z) {{
        {work}
        {waits}
        y[threadIdx.x] = 1;
    }}
    extern "C" __global__ void good(int* y) {{ y[threadIdx.x] = threadIdx.x; }}"""
    child = os.fork()
    if child == 0:
        try:
            m, y = module(code), array(np.zeros(64), i32)
            for _ in range(2):
                (report,) = faults(launch, m, "k", 1, 64, y, i32(0))
                assert report.kind in ("FAULT", "STACK-OVERFLOW") and report.thread == (0, 0, 0), report
                assert not line or report.line == line_of(code, "LINE"), report
                launch(m, "good", 1, 64, y)
                assert (y == np.arange(64)).all()
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@needs_compiler
@pytest.mark.parametrize("helper", [False, True])
@modes
def test_shared_arrays_too_large_for_a_block_do_not_compile(mode, helper):
    array_of = "__shared__ int s[1ull << {}]; s[threadIdx.x] = 1; __syncthreads(); y[threadIdx.x] = s[threadIdx.x];"
    for bits in (14, 38):  # the last is more than a library could hold
        body = array_of.format(bits)
        code = f'extern "C" __global__ void k(int* y) {{ {body} }}'
        if helper:
            code = f'__device__ void f(int* y) {{ {body} }}\nextern "C" __global__ void k(int* y) {{ f(y); }}'
        with pytest.raises(KernelError, match=rf"shared array 's'.* has {4 << bits} bytes; a block has 49152"):
            module(code, mode)


@needs_compiler
def test_a_handler_that_is_set_during_a_launch_stays():
    m, before = module(FAULTY), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=lambda: faults(launch, m, "forever", 2, 8, array(np.zeros(8), i32)))
    try:
        with options(time_limit=0.3):
            thread.start()
            time.sleep(0.1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            thread.join()
        os.kill(os.getpid(), signal.SIGINT)  # the one of before would see it
        action = ctypes.create_string_buffer(256)
        assert ctypes.CDLL(None).sigaction(int(signal.SIGINT), None, action) == 0
        assert int.from_bytes(action.raw[:8], "little") == int(signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)


@needs_compiler
def test_signal_handlers_are_as_before():
    function = ctypes.CDLL(None).sigaction
    signals = [signal.SIGSEGV, signal.SIGFPE, signal.SIGINT, signal.SIGABRT]

    def handlers():
        found = []
        for number in signals:
            action = ctypes.create_string_buffer(256)
            assert function(int(number), None, action) == 0
            found.append((action.raw[:8], action.raw[136:140]))  # handler and flags
        return found

    before = handlers()
    m = module(FAULTY)
    launch(m, "good", 1, 8, array(np.zeros(8), i32))
    faults(launch, m, "null", 3, 8, array(np.zeros(8), i32))
    assert handlers() == before


@needs_compiler
def test_a_fault_in_a_forked_child():
    """A child of fork has none of its parent's timers: it makes its own."""
    m, y = module(FAULTY), array(np.zeros(8), i32)
    launch(m, "good", 1, 8, y)
    child = os.fork()
    if child == 0:
        try:
            with options(time_limit=0.2):
                launch(m, "forever", 2, 8, y)
        except KernelError as error:
            os._exit(7 if error.reports[0].kind == "TIME-LIMIT" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# ---------------------------------------------------------------- two devices at once

SLOW = """
extern "C" __global__ void slow(int rounds, int value, int* __restrict__ y) {
    __shared__ int s[64];
    extern __shared__ int d[];
    int sum = 0;
    for (int i = 0; i < rounds; i++) {
        s[threadIdx.x] = value + i;
        d[threadIdx.x] = value - i;
        __syncthreads();
        sum += s[63 - threadIdx.x] + d[63 - threadIdx.x] - __shfl_xor_sync(0xffffffffu, value, 1);
        __syncthreads();
    }
    y[64 * blockIdx.x + threadIdx.x] = sum;
}"""


@needs_compiler
@modes
def test_two_copies_of_a_module_run_at_once(mode):
    rounds = 2000 if mode == "fast" else 300
    modules = [module(SLOW, mode, copy=copy) for copy in (0, 1)]
    results = [fresh(64, i32), fresh(64, i32)]
    spans = [None, None]

    def work(i):
        start = time.perf_counter()
        launch(modules[i], "slow", 20, 64, i32(rounds), i32(i + 1), fresh(20 * 64, i32), shared_mem=256)
        launch(modules[i], "slow", 1, 64, i32(rounds), i32(i + 1), results[i], shared_mem=256)
        spans[i] = (start, time.perf_counter())

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(start for start, _ in spans) < min(end for _, end in spans), "they did not overlap: more rounds"
    for i in (0, 1):
        np.testing.assert_array_equal(results[i], rounds * (i + 1))


@needs_compiler
def test_a_fault_in_one_thread_leaves_the_other_alone():
    good, bad = module(SLOW), module(FAULTY)
    stop, errors = threading.Event(), []

    def keep_failing():
        while not stop.is_set():
            try:
                launch(bad, "null", 3, 8, array(np.zeros(8), i32))
            except KernelError as error:
                errors.append(error.reports[0].kind)

    thread = threading.Thread(target=keep_failing)
    thread.start()
    try:
        for _ in range(5):
            y = fresh(64, i32)
            launch(good, "slow", 1, 64, i32(2000), i32(3), y, shared_mem=256)
            np.testing.assert_array_equal(y, 6000)
    finally:
        stop.set()
        thread.join()
    assert errors and set(errors) == {"FAULT"}


@needs_compiler
def test_one_module_in_two_threads_takes_turns():
    m = module(SLOW)
    results = [fresh(64, i32) for _ in range(4)]

    def work(i):
        launch(m, "slow", 3, 64, i32(300), i32(i), fresh(3 * 64, i32), shared_mem=256)
        launch(m, "slow", 1, 64, i32(300), i32(i), results[i], shared_mem=256)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, 300 * i)


# ---------------------------------------------------------------- compiling and the cache

TINY = 'extern "C" __global__ void tiny(int* __restrict__ y) { y[0] = VALUE; }'


@pytest.fixture
def runtime():
    """The runtime of fast mode, compiled, in the cache of all tests."""
    return compiler._runtime("fast")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled = compiler._runtime
    compiled.cache_clear()
    yield tmp_path / "minigrad" / "cudasim"
    compiled.cache_clear()


def value_of(m):
    y = fresh(1, i32)
    launch(m, "tiny", 1, 1, y)
    return int(y[0])


@needs_compiler
def test_kernels_are_compiled_once(empty_cache, monkeypatch):
    first = module(TINY, options=("-DVALUE=1",))
    assert value_of(first) == 1 and first.path.parent == empty_cache
    commands = []
    run = compiler._run
    monkeypatch.setattr(compiler, "_run", lambda *words, **kwargs: commands.append(words) or run(*words, **kwargs))
    again = module(TINY, options=("-DVALUE=1",))
    assert again.path == first.path and not commands
    other = module(TINY, options=("-DVALUE=2",))
    assert other.path != first.path and value_of(other) == 2 and value_of(first) == 1
    assert [str(words[0]) for words in commands] == ["g++", "g++"]  # to assembly, to a library: not the runtime again
    assert module(TINY.replace("VALUE", "3")).path not in (first.path, other.path)
    copy = module(TINY, options=("-DVALUE=1",), copy=1)
    assert value_of(copy) == 1 and copy.path != first.path
    assert os.stat(copy.path).st_ino != os.stat(first.path).st_ino
    assert not [path for path in empty_cache.iterdir() if path.is_dir()], "temporary folders are left"


@needs_compiler
def test_many_build_the_same_at_once(empty_cache):
    paths, errors = [], []

    def build():
        try:
            paths.append(module(TINY, options=("-DVALUE=4",)).path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(set(paths)) == 1


@needs_compiler
@pytest.mark.parametrize("why", ["no folder", "no home", "full"])
def test_a_cache_that_cannot_be_written_has_a_substitute(runtime, empty_cache, tmp_path, monkeypatch, why):
    monkeypatch.setattr(compiler, "_substitute", None)
    if why != "full":  # or each would compile the runtime, too
        monkeypatch.setattr(compiler, "_runtime", lambda mode, path=runtime: path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ends = []
    monkeypatch.setattr(atexit, "register", ends.append)
    (tmp_path / "file").write_text("")
    if why == "no folder":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    elif why == "no home":
        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name)
        monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    else:  # g++ itself runs out of room, in the cache only
        (tmp_path / "bin").mkdir()
        script = f'#!/bin/sh\ncase "$*" in *{empty_cache}/*) echo "No space left on device" >&2; exit 1; esac\n'
        (tmp_path / "bin" / "g++").write_text(f'{script}exec {shutil.which("g++")} "$@"\n')
        (tmp_path / "bin" / "g++").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.warns(
        UserWarning, match="cudasim: cannot write compiled kernels to the cache .*XDG_CACHE_HOME"
    ) as said:
        first = module(TINY, options=("-DVALUE=5",))
        again = module(TINY, options=("-DVALUE=5",))
        other = module(TINY, options=("-DVALUE=6",))
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert first.path == again.path and value_of(first) == 5 and value_of(other) == 6
    assert first.path.parent == other.path.parent == compiler._substitute
    assert compiler._substitute.parent == tmp_path and compiler._substitute.name.startswith("minigrad-cudasim.")
    ends[0]()
    assert not list(tmp_path.glob("minigrad-cudasim*")), "gone when the process ends"


@needs_compiler
def test_no_place_for_compiled_kernels_at_all(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "_substitute", None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="cannot write compiled kernels .*set XDG_CACHE_HOME to a folder"):
        module(TINY, options=("-DVALUE=5",))


@needs_compiler
def test_what_a_killed_compilation_left_is_removed(empty_cache):
    for name in ("build.0123456789ab.tmp", "tmpab_cdef0"):  # the second as earlier versions named them
        (empty_cache / name).mkdir(parents=True)
        (empty_cache / name / "kernel.s").write_text("x")
        os.utime(empty_cache / name, (0, 0))
    module(TINY, options=("-DVALUE=7",))
    assert {path.suffix for path in empty_cache.iterdir()} == {".so", ".o"}


def test_without_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "g++" in compiler.available()
    with pytest.raises(DeviceError, match=r"cudasim: needs the C\+\+ compiler g\+\+.*apt-get install g\+\+"):
        module(TINY, options=("-DVALUE=1",))


@needs_compiler
@modes
def test_compile_errors_name_the_line(mode):
    code = 'extern "C" __global__ void wrong(float* y) {\n    float a = 1;\n    y[0] = a + missing;\n}\n'
    with pytest.raises(KernelError, match=r"does not compile:\nkernels/test.cu:3:.*error: 'missing'|‘missing’"):
        module(code, mode)


@needs_compiler
def test_unknown_modes_are_refused():
    with pytest.raises(ArgumentError, match="'slow'"):
        module(TINY, "slow")
