"""Check mode: what it reports, where, and what it must not report.  tests/planted_bugs.py has more broken kernels."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from emulated import array, fresh, launch
from test_cudasim import faults, line_of, module

from minigrad.cudasim import compiler
from minigrad.cudasim.module import Area
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import ArgumentError, KernelError

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
f32, f64, i32 = np.float32, np.float64, np.int32
orders = pytest.mark.parametrize("order", ORDERS)

# ---------------------------------------------------------------- right kernels: no report in any order

CLEAN = {
    "tree with __syncwarp": """
        __shared__ float s[64];
        s[t] = x[i];
        __syncwarp();
        for (int d = 16; d > 0; d /= 2) {
            float other = t % 32 < d ? s[t + d] : 0.0f;
            __syncwarp();
            if (t % 32 < d) s[t] += other;
            __syncwarp();
        }
        y[i] = s[t / 32 * 32];""",
    "__syncwarp of half a warp": """
        __shared__ float s[64];
        s[t] = x[i];
        unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
        __syncwarp(half);
        y[i] = s[t ^ 15];""",
    "one half knows through the other": """
        __shared__ float s[64];
        if (t % 32 == 0) s[t] = 5;
        if (t % 32 < 16) __syncwarp(0x0000ffffu);
        if (t % 32 >= 15) __syncwarp(0xffff8000u);
        if (t % 32 == 31) y[i] = s[t - 31];
        else y[i] = 0;""",
    "two barriers around shared memory that is used again": """
        __shared__ float s[64];
        float sum = 0;
        for (int k = 0; k < 3; k++) {
            s[t] = x[i] + k;
            __syncthreads();
            sum += s[63 - t];
            __syncthreads();
        }
        y[i] = sum;""",
    "neighbouring bytes": """
        __shared__ unsigned char s[64];
        __shared__ short h[64];
        s[t] = (unsigned char)t, h[t] = (short)t;
        __syncthreads();
        y[i] = s[t ^ 1] + h[t ^ 3];""",
    "bytes of words": """
        __shared__ unsigned s[64];
        s[t] = 0x04030201u * (t % 8);
        __syncthreads();
        y[i] = ((unsigned char*)s)[4 * (t ^ 1) + 2] + ((unsigned char*)s)[t];""",
    "one element in parts and as a whole": """
        __shared__ float4 s[16];
        ((float*)s)[t] = x[i];
        __syncthreads();
        float4 four = s[t / 4];
        y[i] = four.x + four.w;
        __syncthreads();
        if (t < 16) s[t] = make_float4(1, 2, 3, 4);
        __syncthreads();
        y[i] += ((float*)s)[63 - t];""",
    "atomics of all threads, read after a barrier": """
        __shared__ int count;
        if (t == 0) count = 0;
        __syncthreads();
        atomicAdd(&count, 1);
        __syncthreads();
        y[i] = count;""",
    "set to zero, added to after a barrier": """
        __shared__ int s;
        if (t == 0) s = 0;
        __syncthreads();
        atomicAdd(&s, t);
        __syncthreads();
        if (t == 0) s = s / 2;
        __syncthreads();
        atomicMax(&s, 100);
        __syncthreads();
        y[i] = s;""",
    "lanes that have met a different number of times": """
        __shared__ float s[64];
        s[t] = x[i];
        if (t % 32 < 16)
            for (int k = 0; k < 5; k++) __syncwarp(0x0000ffffu);
        __syncwarp();
        float other = s[t ^ 16];
        if (t % 32 >= 16)
            for (int k = 0; k < 3; k++) __syncwarp(0xffff0000u);
        __syncwarp();
        s[t] = other + 1;
        __syncwarp();
        y[i] = s[t ^ 31];""",
    "an element is read, written and read by its own thread": """
        y[i] = x[i];
        y[i] += x[i];
        y[i] *= 2;""",
    "all blocks read the same": "y[i] = x[0] + x[127];",
    "local arrays and structs": """
        struct { float a[3]; int k; } local;
        volatile float many[7];
        for (int k = 0; k < 7; k++) many[k] = k;
        for (int k = 0; k < 3; k++) local.a[k] = many[(k + t) % 7];
        local.k = t % 3;
        __syncthreads();
        y[i] = local.a[local.k];""",
    "constant tables": "y[i] = TABLE[t % 4] + x[i];",
    "dynamic shared memory": """
        extern __shared__ float s[];
        s[t] = x[i];
        __syncthreads();
        y[i] = s[63 - t];""",
    "copies by memcpy": """
        float two[2] = {x[i], 1.0f};
        memcpy(y + i, two, 4);""",
    "shifts, sums and casts at the limits": """
        unsigned u = 0xffffffffu + (unsigned)t;
        int big = 2147483647 - t;
        y[i] = (float)((u << 31) >> 31) + (float)(big - 1) * 0.0f + (float)(1 << 30) * 0.0f;""",
}
TABLE = """
__device__ const float TABLE[4] = {1, 2, 3, 4};"""
KERNEL = """
extern "C" __global__ void clean(const float* __restrict__ x, float* __restrict__ y) {
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    %s
}"""
FRAME = TABLE + KERNEL


@cache
def all_clean(mode):
    """One module of them all: that is compiled faster than one of each."""
    return module(TABLE + "".join((KERNEL % CLEAN[name]).replace("clean", kernel_of(name)) for name in CLEAN), mode)


def kernel_of(name):
    return f"clean{list(CLEAN).index(name)}"


@orders
@pytest.mark.parametrize("name", CLEAN)
def test_right_kernels_are_clean(name, order):
    x = array(np.arange(128), f32)
    results = []
    for mode in ("fast", "check"):
        y = fresh(128)
        with options(order=order, seed=5):
            launch(all_clean(mode), kernel_of(name), 2, 64, x, y, shared_mem=256)
        results.append(np.asarray(y))
    np.testing.assert_array_equal(*results)
    assert not np.isnan(results[0]).any()


# ---------------------------------------------------------------- wrong kernels: kind, line, block and thread

WRONG = {
    "read of what another thread writes": (
        """
        __shared__ float s[64];
        s[t] = x[i]; // OTHER
        y[i] = s[t ^ 32]; // HERE""",
        (
            "RACE",
            (0, 0, 0),
            (32, 0, 0),
            "reads byte 0 of {s}, which thread (0,0,0) of this block wrote at OTHER",
        ),
    ),
    "write of what another thread reads": (
        """
        __shared__ float s[64];
        s[t] = x[i];
        __syncthreads();
        y[i] = s[63 - t]; // OTHER
        s[t] = 0; // HERE""",
        (
            "RACE",
            (0, 0, 0),
            (32, 0, 0),
            "writes byte 128 of {s}, which thread (31,0,0) of this block read at OTHER",
        ),
    ),
    "read by two warps, written by one of them": (
        """
        __shared__ float s;
        if (t == 5) s = 1;
        __syncthreads();
        y[i] = t == 5 || t == 40 ? s : 0.0f; // OTHER
        if (t == 40) s = 2; // HERE""",
        ("RACE", (0, 0, 0), (40, 0, 0), "writes byte 0 of {s}, which thread (5,0,0) of this block read at OTHER"),
    ),
    "read by two blocks, written by one of them": (
        """
        float other = t == 0 ? y[64] : 0.0f;
        y[i] = other; // HERE""",
        ("RACE", (1, 0, 0), (0, 0, 0), "writes byte 256 of {y}, which another block read at"),
    ),
    "two writers": (
        """
        __shared__ float s[64];
        s[t / 2] = x[i]; // HERE
        __syncthreads();
        y[i] = s[t / 2];""",
        (
            "RACE",
            (0, 0, 0),
            (1, 0, 0),
            "writes byte 0 of {s}, which thread (0,0,0) of this block wrote at HERE",
        ),
    ),
    "another block": (
        """
        if (t == 0) y[0] = x[i]; // HERE
        if (t > 0 || blockIdx.x > 0) y[i] = 0;""",
        (
            "RACE",
            (1, 0, 0),
            (0, 0, 0),
            "writes byte 0 of {y}, which thread (0,0,0) of block (0,0,0) wrote at HERE",
        ),
    ),
    "a block reads what an earlier one wrote": (
        """
        y[i] = x[i]; // OTHER
        if (blockIdx.x == 1) y[i] += y[t ^ 1]; // HERE""",
        (
            "RACE",
            (1, 0, 0),
            (0, 0, 0),
            "reads byte 4 of {y}, which thread (1,0,0) of block (0,0,0) wrote at OTHER",
        ),
    ),
    "atomic and plain": (
        """
        __shared__ int s;
        if (t == 0) s = 0;
        __syncthreads();
        atomicAdd(&s, 1); // OTHER
        y[i] = s; // HERE""",
        (
            "RACE",
            (0, 0, 0),
            (1, 0, 0),
            "reads byte 0 of {s}, which thread (0,0,0) of this block wrote at OTHER",
        ),
    ),
    "set to zero and added to at once": (
        """
        __shared__ int s;
        if (t == 0) s = 0;
        atomicAdd(&s, 1); // HERE
        __syncthreads();
        y[i] = s;""",
        ("RACE", (0, 0, 0), (1, 0, 0), "updates atomically byte 0 of {s}, which thread (0,0,0) of this block wrote at"),
    ),
    "one block sets to zero, another adds": (
        """
        if (t > 0 || blockIdx.x == 0) y[i] = 0;
        if (t == 0 && blockIdx.x == 1) atomicAdd(&y[0], 1.0f); // HERE
        if (t == 0 && blockIdx.x == 1) y[i] = 0;""",
        (
            "RACE",
            (1, 0, 0),
            (0, 0, 0),
            "updates atomically byte 0 of {y}, which thread (0,0,0) of block (0,0,0) wrote at",
        ),
    ),
    "one block sets to zero and adds, another adds": (
        """
        if (t > 0 || blockIdx.x == 0) y[i] = 0;
        if (t == 0) atomicAdd(&y[0], 1.0f); // HERE
        if (t == 0 && blockIdx.x == 1) y[i] = 0;""",
        (
            "RACE",
            (1, 0, 0),
            (0, 0, 0),
            "updates atomically byte 0 of {y}, which thread (0,0,0) of block (0,0,0) wrote at",
        ),
    ),
    "a shuffle does not order memory": (
        """
        __shared__ float s[64];
        s[t] = x[i]; // OTHER
        y[i] = __shfl_sync(0xffffffffu, 1.0f, 0);
        y[i] += s[t ^ 1]; // HERE""",
        ("RACE", (0, 0, 0), None, "of shared array 's', which thread"),
    ),
    "__syncwarp does not order the whole block": (
        """
        __shared__ float s[64];
        s[t] = x[i]; // OTHER
        __syncwarp();
        y[i] = s[t ^ 32]; // HERE""",
        ("RACE", (0, 0, 0), None, "of shared array 's', which thread"),
    ),
    "__syncwarp of the wrong half": (
        """
        __shared__ float s[64];
        s[t] = x[i]; // OTHER
        __syncwarp(t % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
        y[i] = s[t ^ 16]; // HERE""",
        ("RACE", (0, 0, 0), None, "of shared array 's', which thread"),
    ),
    "neighbouring bytes, one too many": (
        """
        __shared__ unsigned char s[65];
        s[t] = 1; // OTHER
        if (t == 5) s[4] = 2; // HERE
        y[i] = s[t];""",
        ("RACE", (0, 0, 0), None, "writes byte 4 of shared array 's'"),
    ),
    "a byte of a word that another thread writes": (
        """
        __shared__ unsigned s[64];
        s[t] = t; // OTHER
        y[i] = ((unsigned char*)s)[4 * (t ^ 1) + 2]; // HERE""",
        ("RACE", (0, 0, 0), (1, 0, 0), "reads byte 2 of {s}, which thread (0,0,0) of this block wrote at OTHER"),
    ),
    "a lane that has met others more often": (
        """
        __shared__ float s;
        if (t == 0) s = 1;
        __syncthreads();
        float v = 0;
        for (int k = 0; k < 5 && t < 16; k++) __syncwarp(0x0000ffffu);
        for (int k = 0; k < 40 && t >= 16 && t < 32; k++) v += __shfl_sync(0xffff0000u, v, 20);
        if (t == 0) v = s;
        if (t == 16) v = s;
        if (t == 1 || t == 16) __syncwarp(0x00010002u);
        if (t == 1) s = 2; // HERE
        y[i] = v;""",
        ("RACE", (0, 0, 0), (1, 0, 0), "writes byte 0 of {s}"),
    ),
    "nobody wrote it": (
        """
        __shared__ float s[64];
        if (t != 7) s[t] = x[i];
        __syncthreads();
        y[i] = s[63 - t]; // HERE""",
        (
            "UNINIT-SHARED",
            (0, 0, 0),
            (56, 0, 0),
            "reads byte 28 of {s}, which no thread of this block has written",
        ),
    ),
    "what an earlier block left": (
        """
        __shared__ float s[64];
        if (blockIdx.x == 0) s[t] = x[i];
        y[i] = s[t]; // HERE""",
        ("UNINIT-SHARED", (1, 0, 0), (0, 0, 0), "reads byte 0 of shared array 's'"),
    ),
    "fresh memory": (
        "y[i] += x[i]; // HERE",
        ("UNINIT-GLOBAL", (0, 0, 0), (0, 0, 0), "reads byte 0 of argument 1, which has never been written"),
    ),
    "one too far": (
        "y[i] = x[i + 1]; // HERE",
        ("OOB-GLOBAL", (1, 0, 0), (63, 0, 0), "reads 4 bytes at byte 512 of argument 0, which has 512"),
    ),
    "one too early": (
        "y[i] = 0; y[i - 1] = 0; // HERE",
        ("OOB-GLOBAL", (0, 0, 0), (0, 0, 0), "writes 4 bytes at byte -4 of argument 1, which has 512"),
    ),
    "half inside": (
        """
        y[i] = x[i];
        float4 v = *(const float4*)(x + (t / 4) * 4);
        if (i == 124) memcpy(&v, x + 126, 12); // HERE
        y[i] = v.x;""",
        ("OOB-GLOBAL", (1, 0, 0), (60, 0, 0), "at byte 512 of argument 0, which has 512"),
    ),
    "an input is written": (
        "y[i] = 0; ((float*)x)[i] = 1; // HERE",
        (
            "WRITE-CONST",
            (0, 0, 0),
            (0, 0, 0),
            "writes byte 0 of {x}, which the kernel takes as a pointer to const",
        ),
    ),
    "past a row": (
        """
        __shared__ float s[2][32];
        s[t / 32][t % 32 + (t == 31)] = x[i]; // HERE
        y[i] = 0;""",
        ("OOB-INDEX", (0, 0, 0), (31, 0, 0), "index 32 is outside of 'float [32]'"),
    ),
    "misaligned": (
        """
        if (t == 3) y[i] = ((const float2*)(x + 1))->x; // HERE
        else y[i] = 0;""",
        ("MISALIGNED", (0, 0, 0), (3, 0, 0), "float2', which needs a multiple of 8"),
    ),
    "sum too large": (
        "y[i] = (float)(2147483640 + t); // HERE",
        ("OVERFLOW", (0, 0, 0), (8, 0, 0), "does not fit 'int'"),
    ),
    "shift too far": (
        "y[i] = (float)(1u << t); // HERE",
        ("SHIFT", (0, 0, 0), (32, 0, 0), "shifted by 32"),
    ),
    "division by zero": (
        "y[i] = (float)(100 / (t - 9)); // HERE",
        ("DIVISION", (0, 0, 0), (9, 0, 0), "100 divided by 0"),
    ),
    "too few come": (
        """
        if (t < 60) __syncthreads(); // HERE
        y[i] = 0;""",
        ("DIVERGENT-BARRIER", (0, 0, 0), (0, 0, 0), "60 of the block's 64 threads; the other 4 have returned"),
    ),
    "two barriers": (
        """
        if (t < 60) __syncthreads(); // OTHER
        else __syncthreads(); // HERE
        y[i] = 0;""",
        ("DIVERGENT-BARRIER", (0, 0, 0), (60, 0, 0), "while thread (0,0,0) waits at another, at OTHER"),
    ),
    "a lane outside its mask": (
        "y[i] = __shfl_sync(0x0fffffffu, x[i], 0); // HERE",
        ("WARP-MASK", (0, 0, 0), (28, 0, 0), "lane 28 calls a shuffle with mask 0x0fffffff, which does not name it"),
    ),
    "a source outside the mask": (
        "y[i] = 0; if (t < 16) y[i] = __shfl_sync(0xffffu, x[i], t == 9 ? 20 : 0); // HERE",
        ("WARP-SOURCE", (0, 0, 0), (9, 0, 0), "reads lane 20, which mask 0x0000ffff does not name"),
    ),
    "lanes that never come": (
        "y[i] = 0; if (t % 32 < 30) y[i] = __shfl_xor_sync(0xffffffffu, x[i], 1); // HERE",
        ("WARP-DEADLOCK", (0, 0, 0), (0, 0, 0), "for lanes 0xc0000000 of its mask 0xffffffff"),
    ),
    "different masks": (
        """
        if (t % 32 < 16) y[i] = __ballot_sync(0xffffffffu, 1); // HERE
        else y[i] = __ballot_sync(0xfffffff0u, 1); // OTHER""",
        ("WARP-DIVERGENT", (0, 0, 0), (0, 0, 0), "while lane 16 waits in a vote with mask 0xfffffff0, at OTHER"),
    ),
    "different intrinsics": (
        """
        if (t % 32 < 16) y[i] = __ballot_sync(0xffffffffu, 1); // HERE
        else __syncwarp(); // OTHER""",
        ("WARP-DIVERGENT", (0, 0, 0), (0, 0, 0), "while lane 16 waits in __syncwarp with mask 0xffffffff, at OTHER"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_reports_say_what_and_where(name):
    body, (kind, block, thread, text) = WRONG[name]
    code = FRAME % body
    found = faults(launch, module(code, "check"), "clean", 2, 64, array(np.arange(128), f32), fresh(128))
    line = line_of(code, "HERE")
    matching = [r for r in found if (r.kind, r.file, r.line, r.block) == (kind, "kernels/test.cu", line, block)]
    assert matching, found
    if thread is not None:
        assert matching[0].thread == thread
    text = text.format(s="shared array 's'", x="argument 0", y="argument 1")
    for mark in ("HERE", "OTHER"):
        text = text.replace(f"at {mark}", f"at kernels/test.cu:{line_of(code, mark)}" if mark in text else "")
    assert text in matching[0].text
    assert str(matching[0]).startswith(f"kernels/test.cu:{line}: {kind}: block (")


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("order", ORDERS[1:])
def test_reports_come_in_every_order(name, order):
    body, (kind, *_) = WRONG[name]
    with options(order=order, seed=11):
        found = faults(launch, module(FRAME % body, "check"), "clean", 2, 64, array(np.arange(128), f32), fresh(128))
    assert kind in {report.kind for report in found}


def test_the_number_of_reports_is_limited():
    lines = "\n".join(f"s[{k}] = t;" for k in range(20))
    code = FRAME % f"__shared__ volatile int s[20];\n{lines}\ny[i] = s[0];"
    for limit in (1, 3, 8):
        with options(max_reports=limit):
            found = faults(launch, module(code, "check"), "clean", 2, 64, array(np.arange(128), f32), fresh(128))
        assert len(found) == limit and len({report.line for report in found}) == limit


def test_unwritten_outputs():
    code = (
        'extern "C" __global__ void some(float* __restrict__ y, int n) { if (threadIdx.x < n) y[threadIdx.x + 1] = 1; }'
    )
    y = fresh(10)
    (report,) = faults(launch, module(code, "check"), "some", 1, 32, y, i32(7))
    assert (report.kind, report.block, report.thread, report.line) == ("UNWRITTEN", None, None, 1)
    assert report.text == "12 of the 40 bytes of argument 0 were left unwritten, the first at byte 0"
    np.testing.assert_array_equal(y.written, np.repeat([0, *[1] * 7, 0, 0], 4))
    launch(module(code, "check"), "some", 1, 32, array(np.zeros(10), f32), i32(7))  # written before: fine


def test_memory_once_written_stays_written():
    code = """
    extern "C" __global__ void half(float* __restrict__ y, int first) { y[first + threadIdx.x] = first; }
    extern "C" __global__ void twice(float* __restrict__ y) { y[threadIdx.x] *= 2; }"""
    m, y = module(code, "check"), fresh(8)
    faults(launch, m, "half", 1, 4, y, i32(0))  # half of it is missing
    (report,) = faults(launch, m, "twice", 1, 8, y)
    assert report.kind == "UNINIT-GLOBAL" and report.thread == (4, 0, 0)
    y = fresh(8)
    faults(launch, m, "half", 1, 4, y, i32(0))
    launch(m, "half", 1, 4, y, i32(4))
    launch(m, "twice", 1, 8, y)
    np.testing.assert_array_equal(y, [0] * 4 + [8] * 4)


# ---------------------------------------------------------------- arrays that overlap

COPY = """
extern "C" __global__ void shift(const float* __restrict__ x, float* __restrict__ y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x] + 1;
}"""


def launch_on(memory, x, y, n=8):
    """x and y: slices of memory; each is an argument's array."""
    a, b = memory[x], memory[y]
    areas = [Area(a.ctypes.data, a.nbytes, False, None, "x"), Area(b.ctypes.data, b.nbytes, True, None, "y")]
    params = [np.uint64(a.ctypes.data).tobytes(), np.uint64(b.ctypes.data).tobytes(), i32(n).tobytes()]
    module(COPY, "check").get_function("shift").launch((1, 1, 1), (32, 1, 1), params, areas)


def test_arrays_may_be_the_same():
    memory = array(np.arange(20), f32)
    launch_on(memory, slice(4, 12), slice(4, 12))
    np.testing.assert_array_equal(memory, [*range(4), *range(5, 13), *range(12, 20)])


def test_races_between_arrays_that_overlap():
    memory = array(np.arange(20), f32)
    (report,) = faults(launch_on, memory, slice(4, 12), slice(5, 13))
    assert report.kind == "RACE" and report.thread == (1, 0, 0)
    launch_on(array(np.arange(20), f32), slice(0, 8), slice(8, 16))  # side by side: fine


def test_arrays_that_touch_are_still_two():
    """x may not be written although y, which begins where x ends, may."""
    code = 'extern "C" __global__ void back(const float* x, float* y) { y[-1] = x[0]; }'
    memory = array(np.arange(16), f32)
    a, b = memory[:8], memory[8:]
    areas = [Area(a.ctypes.data, a.nbytes, False, None, "x"), Area(b.ctypes.data, b.nbytes, True, None, "y")]
    params = [np.uint64(a.ctypes.data).tobytes(), np.uint64(b.ctypes.data).tobytes()]
    (report,) = faults(module(code, "check").get_function("back").launch, (1, 1, 1), (1, 1, 1), params, areas)
    assert report.kind == "WRITE-CONST" and "byte 28 of x" in report.text


def test_marks_of_the_wrong_size_are_refused():
    y = fresh(8)
    area = Area(y.ctypes.data, y.nbytes, True, np.zeros(8, np.uint8), "y")
    code = 'extern "C" __global__ void one(float* y) { y[0] = 1; }'
    with pytest.raises(ArgumentError, match="written of y must be 32"):
        module(code, "check").get_function("one").launch(
            (1, 1, 1), (1, 1, 1), [np.uint64(y.ctypes.data).tobytes()], [area]
        )


# ---------------------------------------------------------------- counters

TRANSPOSE = """
extern "C" __global__ void transpose(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float tile[32][WIDTH];
    int bx = blockIdx.x * 32, by = blockIdx.y * 32;
    for (int j = threadIdx.y; j < 32; j += 8)
        tile[j][threadIdx.x] = x[(by + j) * n + bx + threadIdx.x]; // LOAD
    __syncthreads();
    for (int j = threadIdx.y; j < 32; j += 8)
        y[(bx + j) * n + by + threadIdx.x] = tile[threadIdx.x][j]; // STORE
}
extern "C" __global__ void naive(const float* __restrict__ x, float* __restrict__ y, int n) {
    int i = blockIdx.x * 32 + threadIdx.x, j = blockIdx.y * 8 + threadIdx.y;
    y[i * n + j] = x[j * n + i]; // NAIVE
}
extern "C" __global__ void fours(const float4* __restrict__ x, float4* __restrict__ y, int n) {
    __shared__ float4 s[64];
    s[threadIdx.x] = x[threadIdx.x]; // FOURS
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x]; // OUT
}
extern "C" __global__ void doubles(const double* __restrict__ x, double* __restrict__ y, int n) {
    __shared__ double s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 40) y[threadIdx.x] = s[threadIdx.x]; // DOUBLES
}
extern "C" __global__ void same(const double* __restrict__ x, double* __restrict__ y, int n) {
    y[threadIdx.x] = x[n]; // SAME
    if (threadIdx.x < 20) atomicAdd((int*)&y[100], 1); // ATOMIC
}"""


def counted(name, grid, block, dtype=f32, n=64, width=32):
    m = module(TRANSPOSE, "check", options=(f"-DWIDTH={width}",))
    m.counters().reset()
    x, y = array(np.arange(n * n), dtype), array(np.zeros(n * n), dtype)
    with options(counters=True):
        launch(m, name, grid, block, x, y, i32(n))
    counters = m.counters()
    return {(row.line, row.operation, row.memory): row for row in counters.rows}, counters


@pytest.mark.parametrize("width, wavefronts", [(32, 32), (33, 1)])
def test_bank_conflicts(width, wavefronts):
    rows, counters = counted("transpose", (2, 2), (32, 8), width=width)
    load, store = line_of(TRANSPOSE, "LOAD"), line_of(TRANSPOSE, "STORE")
    assert set(rows) == {
        (load, "load", "global"),
        (load, "store", "shared"),
        (store, "load", "shared"),
        (store, "store", "global"),
    }
    row = rows[store, "load", "shared"]
    assert (row.requests, row.accesses, row.size) == (128, 4096, 4)
    assert (row.units_per_request, row.ideal_per_request) == (wavefronts, 1)
    assert rows[load, "store", "shared"].units_per_request == 1
    for key in ((load, "load", "global"), (store, "store", "global")):
        assert (rows[key].units_per_request, rows[key].ideal_per_request) == (4, 4)
    assert (counters.bytes_read, counters.bytes_written, counters.bytes_moved) == (16384, 16384, 32768)


def test_sectors():
    rows, counters = counted("naive", (2, 8), (32, 8))
    line = line_of(TRANSPOSE, "NAIVE")
    assert rows[line, "load", "global"].units_per_request == 4
    row = rows[line, "store", "global"]
    assert (row.requests, row.units_per_request, row.ideal_per_request) == (128, 32, 4)
    assert counters.bytes_moved == 128 * 36 * 32


def test_wide_accesses():
    rows, _ = counted("fours", 1, 64)
    row = rows[line_of(TRANSPOSE, "FOURS"), "load", "global"]
    assert (row.size, row.requests, row.units_per_request, row.ideal_per_request) == (16, 2, 16, 16)
    row = rows[line_of(TRANSPOSE, "OUT"), "load", "shared"]
    assert (row.size, row.units_per_request, row.ideal_per_request) == (16, 4, 4)


def test_doubles_go_half_a_warp_at_a_time():
    rows, _ = counted("doubles", 1, 64, f64)
    row = rows[line_of(TRANSPOSE, "DOUBLES"), "load", "shared"]
    assert (row.requests, row.accesses, row.units, row.ideal) == (2, 40, 3, 3)  # 32 lanes: 2, then 8 lanes: 1


def test_one_address_and_atomics():
    rows, counters = counted("same", 1, 32, f64)
    row = rows[line_of(TRANSPOSE, "SAME"), "load", "global"]
    assert (row.size, row.requests, row.units_per_request, row.ideal_per_request) == (8, 1, 1, 1)
    row = rows[line_of(TRANSPOSE, "ATOMIC"), "atomic", "global"]
    assert (row.size, row.accesses, row.units) == (4, 20, 1)
    assert (counters.bytes_read, counters.bytes_written) == (32 * 8 + 80, 32 * 8 + 80)


def test_counters_as_a_table():
    _, counters = counted("naive", (2, 8), (32, 8))
    lines = str(counters).split("\n")
    line = line_of(TRANSPOSE, "NAIVE")
    assert lines[0].split() == ["line", "access", "bytes", "requests", "units/request", "ideal", "unit"]
    assert lines[1].split() == [f"kernels/test.cu:{line}", "global", "load", "4", "128", "4.00", "4.00", "sector"]
    assert lines[2].split() == [f"kernels/test.cu:{line}", "global", "store", "4", "128", "32.00", "4.00", "sector"]
    assert lines[3] == "global memory: 16384 bytes read, 16384 written, 147456 moved"


def test_counters_add_up_until_they_are_reset():
    m = module(TRANSPOSE, "check", options=("-DWIDTH=32",))
    m.counters().reset()
    x, y = array(np.arange(64 * 64), f32), array(np.zeros(64 * 64), f32)
    for launches in (1, 2):
        with options(counters=True):
            launch(m, "naive", (2, 8), (32, 8), x, y, i32(64))
        assert m.counters().bytes_read == launches * 16384
    launch(m, "naive", (2, 8), (32, 8), x, y, i32(64))
    assert m.counters().bytes_read == 2 * 16384  # not counted
    m.counters().reset()
    assert m.counters().rows == []


def test_counters_need_check_mode():
    with pytest.raises(ArgumentError, match="check mode"):
        module(TRANSPOSE, "fast", options=("-DWIDTH=32",)).counters()


def test_counters_say_what_they_had_no_room_for():
    code = """
    extern "C" __global__ void read(const volatile int* __restrict__ x, int n) {
        for (int i = 0; i < n; i++) (void)x[0];
    }"""
    m, x = module(code, "check"), array([1], i32)
    most = 1 << 18
    with options(counters=True):
        for n, missing in ((most, 0), (most + 17, 17), (1, 17)):
            launch(m, "read", 1, 1, x, i32(n))
            assert m.counters().not_counted == missing
    (row,) = m.counters().rows
    assert row.accesses == 2 * most + 1 and "Not complete: 17 accesses" in str(m.counters())
    m.counters().reset()
    assert m.counters().not_counted == 0 and "Not complete" not in str(m.counters())


def test_a_launch_that_was_ended_leaves_nothing_to_count():
    code = """
    extern "C" __global__ void read(const volatile int* __restrict__ x, int n) {
        for (int i = 0; i != n; i++) (void)x[0];
    }"""
    m, x = module(code, "check"), array([1], i32)
    with options(counters=True, time_limit=0.1):
        faults(launch, m, "read", 1, 1, x, i32(-1))
        launch(m, "read", 1, 1, x, i32(3))
    assert [row.accesses for row in m.counters().rows] == [3]


def test_very_many_faults_make_a_short_message():
    stores = "\n".join(f"y[{i}] = threadIdx.x;" for i in range(100))
    code = f'extern "C" __global__ void k(int* y) {{\n{stores}\n}}'
    with pytest.raises(KernelError) as caught:
        launch(module(code, "check"), "k", 100, 64, array(np.zeros(100), i32))
    lines = str(caught.value).split("\n")
    assert len(caught.value.reports) == 8 and len(lines) == 10 and len(str(caught.value)) < 2000
    assert lines[-1].startswith(f"In all {100 * (100 * 64 - 1)} times something was found.")


def test_races_of_very_many_blocks():
    """The beginnings of a million blocks are kept, not of all."""
    code = """
    extern "C" __global__ void k(int* y) {
        if (blockIdx.x == 0) y[0] = 1;
        if (blockIdx.x == 1200000) y[1] = 1;
        if (blockIdx.x == 1200001) y[0] = 2;
        if (blockIdx.x == 1200001) y[1] = 2;
    }"""
    found = faults(launch, module(code, "check"), "k", 1200002, 1, array([0, 0], i32))
    assert ["of an earlier block wrote" in r.text for r in found] == [True, False]
    assert "of block (1200000,0,0) wrote" in found[1].text


MADE_DURING_A_LAUNCH = """
import threading
import numpy as np
from minigrad.cudasim.call import Area
from minigrad.cudasim.module import RawModule

text = '''extern "C" __global__ void k(float* y, int n) {
    for (int i = 0; i < n; i++) { y[threadIdx.x] = i; __syncthreads(); }
}'''
y, done = np.zeros(32, np.float32), []
function = RawModule(text, mode="check").get_function("k")
params = [y.ctypes.data.to_bytes(8, "little"), (10000).to_bytes(4, "little")]

def launch():
    function.launch((1, 1, 1), (32, 1, 1), params, [Area(y.ctypes.data, y.nbytes, True)])
    done.append(True)

thread = threading.Thread(target=launch)
thread.start()
while thread.is_alive():
    RawModule(text, mode="check")  # of the same library
assert done and (y == 9999).all(), y
"""


def test_another_thread_makes_a_module_during_a_launch():
    """In a process of its own: what is watched by mistake ends it."""
    root = Path(__file__).parent.parent
    here = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, "-c", MADE_DURING_A_LAUNCH], env=here, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
