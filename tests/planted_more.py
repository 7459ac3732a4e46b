"""More planted bugs, of kinds that planted_bugs.py does not have, and idioms that look wrong and are right.

    python tests/planted_more.py        prints the tables and the counts; tests/test_planted_more.py asserts them

The form is that of planted_bugs.py.  What can only be suspected and not proven is a note: reports.NOTES.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import planted_bugs
from emulated import Guarded, array, fresh, launch
from planted_bugs import BROKEN, REPAIRED, gemm

from minigrad.cudasim.module import RawModule
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import KernelError


@dataclass(frozen=True)
class Bug(planted_bugs.Bug):
    """before: what stands before the kernel.  bounds: of its launch.  overlap: y begins so many elements behind the
    first of x.  blocks: those of the grid that run.  count: the argument n where it is not the length of x and y."""

    before: str = ""
    bounds: str = ""
    overlap: int | None = None
    blocks: range | None = None
    count: int | None = None

    def source(self, which: int) -> str:
        text = super().source(which)
        marker, kernel = text.split("\n", 1)
        before = planted_bugs.chosen(self.before, which)
        bounds = planted_bugs.chosen(self.bounds, which)
        kernel = kernel.replace("__global__ void", f"__global__ void {bounds}") if bounds else kernel
        if self.blocks:  # the number of a thread is what such a kernel is about
            kernel = kernel.replace("int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;", "")
        return f"{marker}\n{before}{kernel}"


# y_i = x_i + the neighbour above in a tile, for a block of 256 threads and rows of so many.
def above(row: int, test: str, declared: str = "__shared__ float other[256], tile[256];") -> str:
    return f"""
    {declared}
    other[t] = 0;
    tile[t] = x[i];
    __syncthreads();
    const float* here = tile + t;
    float up = {test}here[-{row}]@{test and ""}(t >= {row} ? here[-{row}] : 0.0f)@;
    y[i] = tile[t] + up + other[t];"""


TILE = {"n": 256, "grid": 1, "block": 256}
WRAPPED = {"zeroed": True, "grid": (1 << 26) + 2, "blocks": range(1 << 26, (1 << 26) + 2)}

BUGS = [
    # ---------------------------------------------------------------- shared memory through a pointer
    Bug("row -1, of 16", "shared pointer", "OOB-SHARED", above(16, "@"), **TILE),
    Bug("row -1, of 64", "shared pointer", "OOB-SHARED", above(64, "@"), **TILE),
    Bug(
        "row -1 of dynamic shared memory",
        "shared pointer",
        "OOB-SHARED",
        above(64, "@", "extern __shared__ float tile[]; __shared__ float other[256];"),
        shared_mem=1024,
        **TILE,
    ),
    Bug(
        "a row past the end of a tile",
        "shared pointer",
        "OOB-SHARED",
        """
    __shared__ float tile[16][16], other[16][16];
    tile[t / 16][t % 16] = x[i];
    other[t / 16][t % 16] = 1;
    __syncthreads();
    const float* below = &tile[0][0] + (t / 16 + @2@1@) * 16 + t % 16;
    y[i] = @*below@(t < 240 ? *below : 0.0f)@ + other[t / 16][0];""",
        **TILE,
    ),
    Bug(
        "one array walks far into the next",
        "shared pointer",
        "OOB-SHARED",
        """
    __shared__ float a[64], b[512];
    for (int k = t; k < 512; k += 64) b[k] = k;
    a[t] = x[i];
    __syncthreads();
    const float* p = a;
    y[i] = p[t + @192@0@] + b[t];""",
    ),
    Bug(
        "written past the end through a helper",
        "shared pointer",
        "OOB-SHARED",
        """
    __shared__ float a[64], b[64];
    b[t] = 0;
    fill_planted(a, t@ * 3@@, x[i]);
    __syncthreads();
    y[i] = a[63 - t] + b[t];""",
        before="__device__ void fill_planted(float* to, int at, float v) { to[at] = v; }\n",
    ),
    Bug(
        "dynamic shared memory read past its end",
        "shared pointer",
        "OOB-SHARED",
        """
    extern __shared__ float dynamic[];
    float* p = dynamic;
    p[t] = x[i];
    __syncthreads();
    y[i] = p[t + @64@0@];""",
        shared_mem=256,
    ),
    Bug(
        "one part of dynamic shared memory into the next",
        "shared pointer",
        "OOB-SHARED",
        """
    extern __shared__ float dynamic[];
    float *a = dynamic, *b = dynamic + 64;
    a[t] = x[i], b[t] = 0;
    __syncthreads();
    float sum = 0;
    for (int k = 0; k < 4 && t + k < @67@64@; k++) sum += a[t + k];
    y[i] = sum + b[t];""",
        shared_mem=512,
    ),
    # ---------------------------------------------------------------- locals that nobody has set
    Bug(
        "a sum that does not begin at zero",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float s@@ = 0@;
    for (int k = 0; k < 8; k++) s += x[(i + k) % n];
    y[i] = s;""",
    ),
    Bug(
        "a mean that does not begin at zero",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float s@@ = 0@;
    for (int k = t; k < n; k += 64) s += x[k];
    y[i] = s / n;""",
    ),
    Bug(
        "a count that does not begin at zero",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    int count@@ = 0@;
    for (int k = 0; k < n; k++)
        if (x[k] > x[i]) count++;
    y[i] = count;""",
    ),
    Bug(
        "a maximum that begins anywhere",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float most@@ = -1e30f@;
    for (int k = 0; k < 2; k++) most = most > x[(i + k) % n] ? most : x[(i + k) % n];
    y[i] = most;""",
    ),
    Bug(
        "a minimum that begins anywhere, and is reduced",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    __shared__ float s[64];
    float least@@ = 1e30f@;
    for (int k = t; k < n; k += 64) least = fminf(least, x[k]);
    s[t] = least;
    __syncthreads();
    for (int d = 32; d > 0; d /= 2) {
        if (t < d) s[t] = fminf(s[t], s[t + d]);
        __syncthreads();
    }
    y[i] = s[0];""",
    ),
    Bug(
        "set in one branch only",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float v@@ = 0@;
    if (x[i] > 0) v = x[i];
    y[i] = v;""",
    ),
    Bug(
        "a local array filled in part",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float r[4], sum = 0;
    for (int k = 0; k < @3@4@; k++) r[k] = x[(i + k) % n];
    for (int k = 0; k < 4; k++) sum += r[(k + t) % 4];
    y[i] = sum;""",
    ),
    Bug(
        "accumulators of a tile, not all cleared",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    float sums[2][2];
    for (int k = 0; k < @3@4@; k++) sums[k / 2][k % 2] = 0;
    for (int k = 0; k < n; k++)
        for (int e = 0; e < 4; e++) sums[e / 2][e % 2] += x[k] * x[(i + e) % n];
    y[i] = sums[0][0] + sums[0][1] + sums[1][0] + sums[1][1];""",
    ),
    Bug(
        "a structure set in part",
        "uninitialised local",
        "UNINIT-LOCAL",
        """
    struct Moments { float sum, squares; } m;
    m.sum = 0;
    @@m.squares = 0;@
    for (int k = 0; k < 8; k++) m.sum += x[(i + k) % n], m.squares += x[(i + k) % n] * x[(i + k) % n];
    y[i] = m.squares - m.sum * m.sum / 8;""",
    ),
    # ---------------------------------------------------------------- launch bounds
    Bug("launch bounds of half the block", "launch", "LAUNCH", "    y[i] = x[i];", bounds="__launch_bounds__(@32@64@)"),
    Bug(
        "launch bounds by a macro",
        "launch",
        "LAUNCH",
        "    y[i] = x[i];",
        before="#define PLANTED_WARPS @1@2@\nconstexpr int planted_lanes = 32;\n",
        bounds="__launch_bounds__((PLANTED_WARPS) * planted_lanes, 2)",
    ),
    # ---------------------------------------------------------------- too much static shared memory
    Bug(
        "much in the kernel, and more in a helper",
        "launch",
        "LAUNCH",
        """
    __shared__ float own[5000];
    own[t] = x[i];
    __syncthreads();
    y[i] = own[63 - t] + planted_large(t);""",
        before="""__device__ float planted_large(int t) {
    __shared__ float large[@10000@1000@];
    large[t] = t;
    __syncthreads();
    return large[63 - t];
}
""",
    ),
    Bug(
        "much in two helpers, of a template",
        "launch",
        "LAUNCH",
        """
    y[i] = planted_half<@8000@800@>(t) + planted_half<@7999@799@>(t);""",
        before="""template <int SIZE>
__device__ float planted_half(int t) {
    __shared__ float half[SIZE];
    half[t] = t;
    __syncthreads();
    return half[63 - t];
}
""",
    ),
    # ---------------------------------------------------------------- alignment
    Bug(
        "float4 from floats behind three others",
        "alignment",
        "MISALIGNED",
        """
    __shared__ float edge[3];
    __shared__ @@__align__(16)@ float s[64];
    if (t < 3) edge[t] = t;
    s[t] = x[i];
    __syncthreads();
    float4 v = ((const float4*)s)[t / 4];
    y[i] = v.x + v.w + edge[t % 3];""",
    ),
    Bug(
        "float4 from a structure of four floats",
        "alignment",
        "MISALIGNED",
        """
    __shared__ int edge;
    __shared__ planted_point s[16];
    if (t == 0) edge = t;
    if (t < 16) s[t] = {x[i], x[i], 0, 0};
    __syncthreads();
    float4 v = *(const float4*)&s[t / 4];
    y[i] = v.x + v.y + edge;""",
        before="struct @@alignas(16)@ planted_point { float x, y, z, w; };\n",
    ),
    Bug(
        "float4 from an odd offset of dynamic shared memory",
        "alignment",
        "MISALIGNED",
        """
    extern __shared__ float dynamic[];
    float *head = dynamic, *tail = dynamic + @5@8@;
    if (t < 5) head[t] = t;
    tail[t] = x[i];
    __syncthreads();
    float4 v = ((const float4*)tail)[t / 4];
    y[i] = v.x + v.w + head[t % 5];""",
        shared_mem=512,
    ),
    # ---------------------------------------------------------------- local arrays through a pointer
    Bug(
        "a local array read past its end",
        "local pointer",
        "OOB-LOCAL",
        """
    float r[4], sum = 0;
    const float* p = r;
    for (int k = 0; k < 4; k++) r[k] = x[(i + k) % n];
    for (int k = 0; k @<=@<@ 4; k++) sum += p[k];
    y[i] = sum;""",
    ),
    Bug(
        "a local array written past its end",
        "local pointer",
        "OOB-LOCAL",
        """
    float r[8], sum = 0;
    float* p = r + t % 4;
    for (int k = 0; k < 8; k++) r[k] = 0;
    for (int k = 0; k < @6@5@; k++) p[k] = x[(i + k) % n];
    for (int k = 0; k < 8; k++) sum += r[k];
    y[i] = sum;""",
    ),
    Bug(
        "a pointer walks out of a local array",
        "local pointer",
        "OOB-LOCAL",
        """
    float r[6], sum = 0;
    float* p = r;
    for (int k = 0; k < @7@6@; k++) *p++ = x[(i + k) % n];
    for (int k = 0; k < 6; k++) sum += r[k];
    y[i] = sum;""",
    ),
    Bug(
        "a helper is told the wrong length",
        "local pointer",
        "OOB-LOCAL",
        """
    float r[5];
    for (int k = 0; k < 5; k++) r[k] = x[(i + k) % n];
    y[i] = planted_total(r, @n / 16@5@);""",
        before="""__device__ float planted_total(const float* r, int n) {
    float sum = 0;
    for (int k = 0; k < n; k++) sum += r[k];
    return sum;
}
""",
    ),
    Bug(
        "left of a local array",
        "local pointer",
        "OOB-LOCAL",
        """
    float r[5];
    for (int k = 0; k < 5; k++) r[k] = x[(i + k) % n];
    const float* p = r + t % 5;
    y[i] = @p[-1]@(t % 5 ? p[-1] : 0.0f)@;""",
    ),
    # ---------------------------------------------------------------- what is left of the round before
    Bug(
        "a tile's tail is not cleared",
        "stale",
        "STALE-SHARED",
        gemm(
            load="""if (row < 40 && k + c < 40) A[r][c] = x[row * 40 + k + c];
        @else if (row >= 40 || k == 0)@else@ A[r][c] = 0;"""
        ).replace("r][e] * B[e][c]", "r][e] * B[e][c] * (k + e < 40)"),
        **planted_bugs.GEMM,
    ),
    Bug(
        "the last piece of a row is short",
        "stale",
        "STALE-SHARED",
        """
    __shared__ float s[64];
    float sum = 0;
    for (int k = 0; k < n; k += 64) {
        if (k + t < n) s[t] = x[k + t];
        @@else s[t] = 0;@
        __syncthreads();
        for (int e = 0; e < 64; e++) sum += s[e];
        __syncthreads();
    }
    y[i] = sum;""",
        n=192,
        grid=3,
        count=160,
    ),
    # ---------------------------------------------------------------- __activemask and widths
    Bug(
        "a width that is no power of two",
        "warp",
        "WARP-WIDTH",
        "    y[i] = x[i] + __shfl_down_sync(0xffffffffu, x[i], 4, @24@16@);",
    ),
    Bug(
        "a width of more than a warp",
        "warp",
        "WARP-WIDTH",
        "    y[i] = x[i] + __shfl_sync(0xffffffffu, x[i], t % 8, @64@32@);",
    ),
    Bug(
        "the active lanes of before the branch",
        "warp",
        "WARP-DEADLOCK",
        """
    unsigned mask = __activemask();
    float v = x[i];
    if (t % 32 < 20) {
        @@mask = __ballot_sync(0x000fffffu, 1);@
        v += __shfl_sync(mask, v, 3);
    }
    y[i] = v;""",
    ),
    Bug(
        "a sum over the active lanes of a warp's tail",
        "warp",
        "WARP-SOURCE",
        """
    if (i < n) {
        float v = x[i];
        unsigned mask = __activemask();
        for (int d = 16; d > 0; d /= 2) {
            float other = __shfl_down_sync(mask, v, @d@t % 32 + d < __popc(mask) ? d : 0@);
            if (t % 32 + d < __popc(mask)) v += other;
        }
        y[i] = v;
    }""",
        n=100,
    ),
    # ---------------------------------------------------------------- numbers that wrap around
    Bug(
        "the number of a thread in 32 bits",
        "wrap",
        "OVERFLOW",
        """
    size_t far = @@(size_t)@blockIdx.x * blockDim.x + threadIdx.x;
    if (far < n) y[far] = 1;""",
        **WRAPPED,
    ),
    Bug(
        "the number of a thread in 32 bits, the other way round",
        "wrap",
        "OVERFLOW",
        """
    unsigned long long far = threadIdx.x + blockDim.x * @@(unsigned long long)@blockIdx.x;
    if (far < n) y[far] = 1;""",
        **WRAPPED,
    ),
    Bug(
        "n - 1 of none",
        "wrap",
        "OOB-GLOBAL",
        """
    float sum = 0;
    for (unsigned k = 0; k @< (unsigned)n - 1@+ 1 < (unsigned)n@; k++) sum += x[k + 1] - x[k];
    y[i] = sum;""",
        count=0,
    ),
    Bug(
        "rows times columns in an int",
        "wrap",
        "OVERFLOW",
        """
    int rows = 65536, columns = 65536;
    y[i] = x[(@@(long long)@rows * columns + i) % n];""",
    ),
    # ---------------------------------------------------------------- __restrict__
    Bug(
        "read again after it was written in place",
        "restrict",
        "RESTRICT",
        """
    @y[i] = 2 * x[i];
    y[i] += x[i];@float v = x[i];
    y[i] = 2 * v;
    y[i] += v;@""",
        overlap=0,
    ),
    Bug(
        "one thread moves what overlaps",
        "restrict",
        "RESTRICT",
        """
    if (t == 0) for (int k = @0@0@; @k < n; k++@k < n; k++@) y[@k@n - 1 - k@] = x[@k@n - 1 - k@];""",
        overlap=1,
        grid=1,
        count=100,
    ),
    # ---------------------------------------------------------------- threads that wait for others, without the fence
    Bug(
        "the last block, without a fence",
        "fence",
        "RACE",
        """
    __shared__ bool last;
    if (t == 0) {
        planted_sums[blockIdx.x] = x[i];
        @@__threadfence();@
        last = atomicAdd(&planted_done, 1) == gridDim.x - 1;
    }
    __syncthreads();
    y[i] = 0;
    __syncthreads();
    if (last && t == 0) {
        float sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += planted_sums[b];
        y[i] = sum;
        planted_done = 0;
    }""",
        before="__device__ float planted_sums[8];\n__device__ unsigned planted_done;\n",
    ),
    Bug(
        "a lock that is not always taken",
        "fence",
        "RACE",
        """
    __shared__ int lock;
    __shared__ float sum;
    if (t == 0) lock = 0, sum = 0;
    __syncthreads();
    @if (t % 2)@@ while (atomicCAS(&lock, 0, 1) != 0) {}
    __threadfence_block();
    sum += x[i];
    __threadfence_block();
    @if (t % 2)@@ atomicExch(&lock, 0);
    __syncthreads();
    y[i] = sum;""",
    ),
]

# ---------------------------------------------------------------- what looks wrong and is right

IDIOMS = [
    Bug(
        "all lanes store the same value",
        "same value",
        "",
        """
    __shared__ float found[2];
    found[t / 32] = n;
    __syncthreads();
    y[i] = found[0] + found[1];""",
    ),
    Bug(
        "any thread that finds one says so",
        "same value",
        "",
        """
    __shared__ bool any;
    if (t == 0) any = false;
    __syncthreads();
    if (x[i] > 0) any = true;
    __syncthreads();
    if (any) y[0] = 1;""",
        zeroed=True,
    ),
    Bug(
        "the last block, all threads write",
        "fence",
        "",
        """
    __shared__ bool last;
    y[i] = x[i];
    __threadfence();
    __syncthreads();
    if (t == 0) last = atomicInc(&planted_finished, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    if (last && t == 0) {
        float sum = 0;
        for (int k = 0; k < n; k++) sum += y[k];
        y[0] = sum;
    }""",
        before="__device__ unsigned planted_finished;\n",
        grid=2,
    ),
    Bug(
        "a lock in shared memory",
        "lock",
        "",
        """
    __shared__ int lock;
    __shared__ float sum;
    if (t == 0) lock = 0, sum = 0;
    __syncthreads();
    while (atomicCAS(&lock, 0, 1) != 0) {}
    __threadfence_block();
    sum += x[i];
    __threadfence_block();
    atomicExch(&lock, 0);
    __syncthreads();
    y[i] = sum;""",
    ),
    Bug(
        "a lock in global memory, one thread of each block",
        "lock",
        "",
        """
    if (t == 0) {
        while (atomicExch(&planted_lock, 1) != 0) {}
        __threadfence();
        y[0] = y[0] + x[i];
        __threadfence();
        atomicExch(&planted_lock, 0);
    }""",
        before="__device__ int planted_lock;\n",
        zeroed=True,
    ),
    Bug(
        "a lock tried in a loop",
        "lock",
        "",
        """
    bool done = false;
    while (!done) {
        if (atomicCAS(&planted_mutex, 0, 1) == 0) {
            __threadfence();
            *((volatile float*)y) += x[i];
            __threadfence();
            atomicExch(&planted_mutex, 0);
            done = true;
        }
    }""",
        before="__device__ int planted_mutex;\n",
        zeroed=True,
    ),
    Bug(
        "the greatest float by atomicCAS",
        "lock",
        "",
        """
    int* at = (int*)y;
    int old = *at, seen;
    do {
        seen = old;
        if (__int_as_float(seen) >= x[i]) break;
        old = atomicCAS(at, seen, __float_as_int(x[i]));
    } while (old != seen);""".replace("int old = *at", "int old = atomicAdd(at, 0)"),
        zeroed=True,
    ),
    Bug(
        "a variable of the device",
        "device variable",
        "",
        """
    if (blockIdx.x == 0 && t == 0) planted_seen = n;
    atomicAdd(&planted_count, 1);
    y[i] = planted_table[t % 3];""",
        before="__device__ int planted_seen, planted_count;\n__device__ float planted_table[3] = {1, 2, 3};\n",
    ),
    Bug("a negative number shifted", "shift", "", "    y[i] = (float)((-t << 2) + (-t >> 1)) + (1 << 31 >> t % 8);"),
    Bug(
        "pointers in structures",
        "pointers",
        "",
        """
    struct Views { const float* from; float* to; } views[2] = {{x, y}, {x + n / 2, y + n / 2}};
    Views& mine = views[blockIdx.x];
    mine.to[t] = mine.from[t];""",
    ),
    Bug(
        "pointers in shared memory",
        "pointers",
        "",
        """
    __shared__ const float* rows[4];
    if (t < 4) rows[t] = x + t * 32;
    __syncthreads();
    y[i] = rows[t % 4][t / 4];""",
    ),
    Bug(
        "two ints as one long long",
        "pairs",
        "",
        """
    __shared__ int pairs[64];
    pairs[t] = index[i];
    __syncthreads();
    long long two = *(const long long*)&pairs[t & ~1], more = ((const long long*)index)[i / 2];
    y[i] = (float)(int)(two >> 32) + (int)more;""",
    ),
    Bug(
        "one atomic for the lanes that are there",
        "warp",
        "",
        """
    if (x[i] > 0) {
        unsigned mask = __activemask(), lane = t % 32;
        int leader = __ffs((int)mask) - 1, first;
        if ((int)lane == leader) first = (int)atomicAdd((unsigned*)y, __popc(mask));
        first = __shfl_sync(mask, first, leader);
        if (first < 0) y[1] = 1;
    }""",
        zeroed=True,
    ),
    Bug("in place, each element by itself", "restrict", "", "    y[i] = x[i] * 2 + 1;", overlap=0),
    Bug(
        "set and used under the same condition",
        "locals",
        "",
        """
    float v;
    bool positive = x[i] > 0;
    if (positive) v = sqrtf(x[i]);
    y[i] = 1;
    __syncthreads();
    if (positive) y[i] = v;""",
    ),
    Bug(
        "an array of which a part is set and used",
        "locals",
        "",
        """
    float r[8], sum = 0;
    int k = 0;
    for (int j = t; j < n; j += 40) r[k++] = x[j];
    while (k > 0) sum += r[--k];
    y[i] = sum;""",
    ),
    Bug(
        "three tiles in turn",
        "stale",
        "",
        """
    __shared__ float s[3][64];
    float sum = 0;
    s[0][t] = x[i];
    s[1][t] = x[i] + 1;
    __syncthreads();
    for (int k = 0; k < 4; k++) {
        s[(k + 2) % 3][t] = x[i] + k;
        sum += s[k % 3][63 - t];
        __syncthreads();
    }
    y[i] = sum;""",
    ),
    Bug(
        "a scan in shared memory",
        "stale",
        "",
        """
    __shared__ float s[64];
    s[t] = x[i];
    for (int d = 1; d < 64; d *= 2) {
        __syncthreads();
        float v = t >= d ? s[t - d] : 0.0f;
        __syncthreads();
        if (t >= d) s[t] += v;
    }
    y[i] = s[t];""",
    ),
    Bug(
        "a walk over a local array by pointers",
        "local pointer",
        "",
        """
    float r[6], sum = 0;
    float* p = r;
    for (int k = 0; k < 6; k++) *p++ = x[(i + k) % n];
    for (const float* q = r; q != r + 6; q++) sum += *q;
    for (const float* q = r + 6; q-- != r;) sum += *q;
    y[i] = sum;""",
    ),
    Bug(
        "float4 into a local array",
        "alignment",
        "",
        """
    float r[4];
    *(float4*)r = ((const float4*)x)[i / 4];
    y[i] = r[t % 4];""",
    ),
    Bug(
        "float4 from dynamic shared memory behind an odd array",
        "alignment",
        "",
        """
    extern __shared__ float dynamic[];
    __shared__ float edge[5];
    if (t < 5) edge[t] = t;
    dynamic[t] = x[i];
    __syncthreads();
    float4 v = ((const float4*)dynamic)[t / 4];
    y[i] = v.x + v.w + edge[t % 5];""",
        shared_mem=256,
    ),
    Bug("launch bounds that hold", "launch", "", "    y[i] = x[i];", bounds="__launch_bounds__(128, 4)"),
    Bug(
        "a grid of more than 2^32 threads",
        "wrap",
        "",
        """
    size_t far = (size_t)blockIdx.x * blockDim.x + threadIdx.x, same = threadIdx.x + size_t(blockIdx.x) * blockDim.x;
    if (far < n) y[far] = same;""",
        **WRAPPED,
    ),
]


# ---------------------------------------------------------------- running them


@cache
def module(which: int, mode: str) -> RawModule:
    """All broken, or all repaired kernels and the idioms."""
    return RawModule("".join(bug.source(which) for bug in [*BUGS, *IDIOMS]), mode=mode)


def run(bug: Bug, which: int, mode: str, order: str) -> tuple[Guarded, set[str]]:
    """y, and the kinds of the notes.  Raises KernelError where the emulator finds a fault."""
    random = np.random.default_rng(0)
    x = array(random.standard_normal(bug.n), np.float32)
    index = array(random.integers(0, bug.n // 4, bug.n), np.int32)
    y = array(np.zeros(bug.n), np.float32) if bug.zeroed else fresh(bug.n)
    n = bug.n if bug.count is None else bug.count
    if bug.overlap is not None:
        memory = array(random.standard_normal(bug.n + bug.overlap), np.float32)
        x, y = memory[: bug.n], memory[bug.overlap :]
    kernels = module(which, mode)
    with options(order=order, seed=3, time_limit=10.0, blocks=bug.blocks):
        launch(kernels, bug.kernel, bug.grid, bug.block, x, index, y, np.int32(n), shared_mem=bug.shared_mem)
    return y, {report.kind for report in getattr(kernels, "notes", [])}


def kinds(bug: Bug, which: int, order: str, mode: str = "check") -> tuple[set[str], set[str]]:
    """The kinds of the reports, and of the notes."""
    try:
        return set(), run(bug, which, mode, order)[1]
    except KernelError as error:
        return {report.kind for report in error.reports} or {"GUARD"}, set()


def main() -> None:
    width = max(len(bug.name) for bug in [*BUGS, *IDIOMS])
    found = clean = 0
    for bug in BUGS:
        broken = [kinds(bug, BROKEN, order) for order in ORDERS]
        repaired = [kinds(bug, REPAIRED, order) for order in ORDERS]
        caught = all(bug.kind in reports | notes for reports, notes in broken)
        twin = set().union(*(reports for reports, _ in repaired))
        found, clean = found + caught, clean + (not twin)
        seen = ", ".join(sorted(set().union(*(reports | notes for reports, notes in broken))))
        noted = set().union(*(notes for _, notes in repaired))
        print(f"{bug.name:<{width}}  {'found' if caught else 'MISSED':6}  {seen}", end="")
        print(f"  TWIN: {', '.join(sorted(twin))}" if twin else "", f"  twin's notes: {noted}" if noted else "")
    right = 0
    for bug in IDIOMS:
        seen = [kinds(bug, REPAIRED, order) for order in ORDERS]
        reports, notes = (set().union(*one) for one in zip(*seen))
        right += not reports
        print(f"{bug.name:<{width}}  {'passed' if not reports else 'REPORTED':8}  {', '.join(sorted(reports | notes))}")
    print(f"\n{len(BUGS)} planted bugs.  Check mode finds {found}, each in {len(ORDERS)} orders of the threads.")
    print(
        f"Of the {len(BUGS)} kernels without the mistake, check mode passes {clean}; of {len(IDIOMS)} idioms {right}."
    )


if __name__ == "__main__":
    main()
