"""Small CUDA kernels with one mistake each, and without it: do the emulator's checks find the one and pass the other?

    python tests/planted_bugs.py        prints the table and the counts; tests/test_planted_bugs.py asserts them

All kernels take (const float* x, const int* index, float* y, int n): x holds n floats, index n ints below n / 4, y is
fresh memory for n floats (zeros where `zeroed`).  In the text, @broken@repaired@ is the place of the mistake.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from emulated import Guarded, array, fresh, launch

from minigrad.cudasim.module import RawModule
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import KernelError
from minigrad.gpu.sources import kernel_folder

BROKEN, REPAIRED = 0, 1


def chosen(text: str, which: int) -> str:
    """The text with the broken, or the repaired half of each @broken@repaired@."""
    return re.sub(r"@(.*?)@(.*?)@", lambda m: m[1 + which], text, flags=re.DOTALL)


@dataclass(frozen=True)
class Bug:
    """kind: the report that check mode must make, in whatever order the threads run."""

    name: str
    category: str
    kind: str
    body: str
    n: int = 128
    grid: int = 2
    block: int = 64
    shared_mem: int = 0
    zeroed: bool = False

    @property
    def kernel(self) -> str:
        return re.sub(r"\W+", "_", self.name)

    def source(self, which: int) -> str:
        body = chosen(self.body, which)
        return (
            f'#line 1 "planted/{self.kernel}.cu"\n'
            f'extern "C" __global__ void {self.kernel}(\n'
            "    const float* __restrict__ x, const int* __restrict__ index, float* __restrict__ y, int n) {\n"
            "    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;\n"
            f"{body}\n}}\n"
        )


# y = x x^T for x of 40 x 40 by tiles of 16 x 16: 3 x 3 blocks in one row of 9, 256 threads.
def gemm(after_load: str = "__syncthreads();", after_use: str = "__syncthreads();", load: str = "") -> str:
    load = load or "A[r][c] = row < 40 && k + c < 40 ? x[row * 40 + k + c] : 0.0f;"
    return f"""
    __shared__ float A[16][16], B[16][17];
    int r = t / 16, c = t % 16, row = blockIdx.x / 3 * 16 + r, column = blockIdx.x % 3 * 16 + c;
    float sum = 0;
    for (int k = 0; k < 40; k += 16) {{
        {load}
        B[c][r] = blockIdx.x % 3 * 16 + r < 40 && k + c < 40 ? x[(blockIdx.x % 3 * 16 + r) * 40 + k + c] : 0.0f;
        {after_load}
        for (int e = 0; e < 16; e++) sum += A[r][e] * B[e][c];
        {after_use}
    }}
    if (row < 40 && column < 40) y[row * 40 + column] = sum;"""


GEMM = {"n": 1600, "grid": 9, "block": 256}


# y_i = the sum of one element of each of four tiles of 64, which come through two buffers by asynchronous copies.
def stages(
    commit: str = "copy_async_commit();",
    wait: str = "copy_async_wait<1>();",
    after_wait: str = "__syncthreads();",
    after_use: str = "__syncthreads();",
    more: str = "k < 3",
) -> str:
    return f"""
    __shared__ float s[2][64];
    float sum = 0;
    copy_async<4>(&s[0][t], &x[i], true);
    copy_async_commit();
    for (int k = 0; k < 4; k++) {{
        if ({more}) copy_async<4>(&s[(k + 1) % 2][t], &x[(i + 64 * (k + 1)) % n], true);
        {commit}
        {wait}
        {after_wait}
        sum += s[k % 2][63 - t];
        {after_use}
    }}
    y[i] = sum;"""


STAGES = {"n": 512, "grid": 8}


# y = a b by one warp; a is all of x, 16 x 8, and b the first half of it, 8 x 8.
def matrix_unit(a: str = "tf32(x[{}])", b: str = "tf32(x[{}])", call: str = "multiply_add_tf32(d, a, b);") -> str:
    a = a.format("(t / 4 + i % 2 * 8) * 8 + t % 4 + i / 2 * 4")
    b = b.format("(t % 4 + i * 4) * 8 + t / 4")
    return f"""
    float d[4] = {{}}, a[4], b[2];
    for (int i = 0; i < 4; i++) a[i] = {a};
    for (int i = 0; i < 2; i++) b[i] = {b};
    {call}
    for (int i = 0; i < 4; i++) y[(t / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = d[i];"""


WARP = {"n": 128, "grid": 1, "block": 32}

BUGS = [
    # ---------------------------------------------------------------- races in shared memory
    Bug("gemm, no barrier after loading", "race", "RACE", gemm(after_load="@@__syncthreads();@"), **GEMM),
    Bug("gemm, no barrier before loading again", "race", "RACE", gemm(after_use="@@__syncthreads();@"), **GEMM),
    Bug(
        "tree sum, no barrier in the loop",
        "race",
        "RACE",
        """
    __shared__ float s[64];
    s[t] = x[i];
    __syncthreads();
    for (int d = 32; d > 0; d /= 2) {
        if (t < d) s[t] += s[t + d];
        @@__syncthreads();@
    }
    __syncthreads();
    y[i] = s[0];""",
    ),
    Bug(
        "softmax, maximum and sum in one buffer",
        "race",
        "RACE",
        """
    __shared__ float s[64];
    s[t] = x[i];
    __syncthreads();
    for (int d = 32; d > 0; d /= 2) {
        if (t < d) s[t] = fmax(s[t], s[t + d]);
        __syncthreads();
    }
    float most = s[0];
    @@__syncthreads();@
    s[t] = exp(x[i] - most);
    __syncthreads();
    for (int d = 32; d > 0; d /= 2) {
        if (t < d) s[t] += s[t + d];
        __syncthreads();
    }
    y[i] = exp(x[i] - most) / s[0];""",
    ),
    Bug(
        "sums of warps, no barrier before they are read",
        "race",
        "RACE",
        """
    __shared__ float warps[2];
    float v = x[i];
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    if (t % 32 == 0) warps[t / 32] = v;
    @@__syncthreads();@
    y[i] = warps[0] + warps[1];""",
    ),
    Bug(
        "transpose, no barrier",
        "race",
        "RACE",
        """
    __shared__ float tile[16][17];
    int r = t / 16, c = t % 16;
    tile[r][c] = x[i];
    @@__syncthreads();@
    y[i] = tile[c][r];""",
        n=256,
        grid=1,
        block=256,
    ),
    Bug(
        "neighbours in shared memory, no barrier",
        "race",
        "RACE",
        """
    __shared__ float s[66];
    s[t + 1] = x[i];
    if (t == 0) s[0] = i > 0 ? x[i - 1] : 0.0f;
    if (t == 63) s[65] = i < n - 1 ? x[i + 1] : 0.0f;
    @@__syncthreads();@
    y[i] = s[t] + s[t + 1] + s[t + 2];""",
    ),
    Bug(
        "two buffers, but one is used twice",
        "race",
        "RACE",
        """
    __shared__ float s[2][64];
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        s[@k / 2@k % 2@][t] = x[i] + k;
        __syncthreads();
        sum += s[@k / 2@k % 2@][63 - t];
    }
    y[i] = sum;""",
    ),
    Bug(
        "histogram in shared memory without atomics",
        "race",
        "RACE",
        """
    __shared__ int bins[32];
    if (t < 32) bins[t] = 0;
    __syncthreads();
    @bins[index[i]] += 1;@atomicAdd(&bins[index[i]], 1);@
    __syncthreads();
    y[i] = bins[t % 32];""",
    ),
    Bug(
        "the first thread's result, no barrier",
        "race",
        "RACE",
        """
    __shared__ float first;
    if (t == 0) first = x[i] * 2;
    @@__syncthreads();@
    y[i] = first;""",
    ),
    # ---------------------------------------------------------------- races within a warp
    Bug(
        "last steps in one warp without __syncwarp",
        "race",
        "RACE",
        """
    __shared__ volatile float s[64];
    s[t] = x[i];
    __syncthreads();
    if (t < 32)
        for (int d = 32; d > 0; d /= 2) {
            float other = s[t + d];
            @@__syncwarp();@
            s[t] = s[t] + other;
            @@__syncwarp();@
        }
    __syncthreads();
    y[i] = s[0];""",
    ),
    Bug(
        "__syncwarp of half the warp",
        "race",
        "RACE",
        """
    __shared__ float s[64];
    s[t] = x[i];
    unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    __syncwarp(@half@half | ~half@);
    y[i] = s[t ^ 16];""",
    ),
    Bug(
        "a shuffle taken for a barrier",
        "race",
        "RACE",
        """
    __shared__ float s[64];
    s[t] = x[i];
    float first = __shfl_sync(0xffffffffu, x[i], 0);
    @@__syncwarp();@
    y[i] = s[t ^ 1] + first;""",
    ),
    # ---------------------------------------------------------------- races in global memory
    Bug(
        "histogram without atomics",
        "race",
        "RACE",
        "    @y[index[i]] += 1;@atomicAdd(&y[index[i]], 1.0f);@",
        zeroed=True,
    ),
    Bug(
        "backward of a gather scatters",
        "race",
        "RACE",
        """
    @y[index[i]] += x[i];@float sum = 0;
    for (int j = 0; j < n; j++) if (index[j] == i) sum += x[j];
    y[i] = sum;@""",
        zeroed=True,
    ),
    Bug(
        "smoothing in place",
        "race",
        "RACE",
        """
    @y[i] = x[i];
    y[i] = (y[i] + y[i ^ 1]) / 2;@y[i] = (x[i] + x[i ^ 1]) / 2;@""",
    ),
    Bug(
        "blocks overlap by one element",
        "race",
        "RACE",
        """
    int own = blockIdx.x * @63@64@ + t;
    y[own] = x[own] + blockIdx.x;
    @if (i == 127) y[i] = 0;@@""",
    ),
    Bug(
        "a block reads what another wrote",
        "race",
        "RACE",
        """
    @y[i] = x[i];
    __syncthreads();
    y[i] += blockIdx.x == 1 ? y[t] : 0.0f;@y[i] = x[i] + (blockIdx.x == 1 ? x[t] : 0.0f);@""",
    ),
    Bug(
        "sums of blocks added up without atomics",
        "race",
        "RACE",
        """
    float v = x[i];
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    if (t == 0) @y[0] += v;@atomicAdd(&y[0], v);@""",
        zeroed=True,
    ),
    # ---------------------------------------------------------------- out of bounds: global memory
    Bug("no test against n", "bounds", "OOB-GLOBAL", "    @y[i] = x[i];@if (i < n) y[i] = x[i];@", n=100),
    Bug("up to and including n", "bounds", "OOB-GLOBAL", "    if (i @<=@<@ n) y[i] = x[i];", n=100),
    Bug("left of the first", "bounds", "OOB-GLOBAL", "    y[i] = x[i] - @x[i - 1]@(i > 0 ? x[i - 1] : 0.0f)@;"),
    Bug(
        "a row too long",
        "bounds",
        "OOB-GLOBAL",
        """
    int r = i / 10, c = i % 10;
    if (r < 10) y[r * 10 + c] = x[r * @11@10@ + c];""",
        n=100,
    ),
    Bug("a label out of range", "bounds", "OOB-GLOBAL", "    y[i] = x[@index[i] * 5@index[i]@];"),
    Bug(
        "float4 at the end",
        "bounds",
        "OOB-GLOBAL",
        """
    if (i < @(n + 3) / 4@n / 4@) ((float4*)y)[i] = ((const float4*)x)[i];
    if (i == 0) for (int j = n / 4 * 4; j < n; j++) y[j] = x[j];""",
        n=126,
    ),
    Bug(
        "the index in 32 bits",
        "arithmetic",
        "OVERFLOW",
        """
    @int@long long@ far = i * @40000000@40000000ll@;
    y[i] = x[far % n < 0 ? 0 : far % n];""",
    ),
    # ---------------------------------------------------------------- out of bounds: shared memory
    Bug(
        "past the end of a row",
        "bounds",
        "OOB-INDEX",
        """
    __shared__ float s[2][33];
    s[t / 32][t % 32 + @t / 31@1@] = x[i];
    __syncthreads();
    y[i] = s[1 - t / 32][1];""",
    ),
    Bug(
        "too few sums of warps",
        "bounds",
        "OOB-INDEX",
        """
    __shared__ float warps[@3@4@];
    if (t % 32 == 0) warps[t / 32] = x[i];
    __syncthreads();
    y[i] = warps[0];""",
        grid=1,
        block=128,
    ),
    Bug(
        "too little dynamic shared memory",
        "bounds",
        "OOB-SHARED",
        """
    extern __shared__ float dynamic[];
    @@if (t < 32)@ dynamic[t] = x[i];
    __syncthreads();
    y[i] = dynamic[31 - t % 32];""",
        shared_mem=128,
    ),
    Bug(
        "a pointer walks on into the next array",
        "bounds",
        "OOB-SHARED",
        """
    __shared__ float a[64], b[64];
    a[t] = x[i], b[t] = 0;
    __syncthreads();
    float* p = a + t;
    float sum = 0;
    for (int k = 0; k < @8@8 && k < 64 - t@; k++) sum += *p++;
    y[i] = sum + b[t];""",
    ),
    Bug(
        "float4 from the last three",
        "bounds",
        "OOB-SHARED",
        """
    __shared__ __align__(16) float s[@63@64@];
    if (t < 63) s[t] = x[i];
    else @@s[63] = x[i]@;
    __syncthreads();
    float4 v = *(const float4*)((const float*)s + t / 4 * 4);
    y[i] = v.x + v.w;""",
    ),
    # ---------------------------------------------------------------- barriers
    Bug(
        "return before a barrier",
        "barrier",
        "DIVERGENT-BARRIER",
        """
    __shared__ float s[64];
    @if (i >= n) return;
    s[t] = x[i];@s[t] = i < n ? x[i] : 0.0f;@
    __syncthreads();
    if (i < n) y[i] = s[t] + s[0];""",
        n=100,
    ),
    Bug(
        "a barrier for half the block",
        "barrier",
        "DIVERGENT-BARRIER",
        """
    __shared__ float s[64];
    s[t] = x[i];
    @if (t < 32)@@ __syncthreads();
    y[i] = s[t] + s[@t@63 - t@];""",
    ),
    Bug(
        "a barrier in each branch",
        "barrier",
        "DIVERGENT-BARRIER",
        """
    __shared__ float s[64];
    s[t] = x[i];
    @if (t < 32) {
        __syncthreads();
        y[i] = s[63 - t];
    } else {
        __syncthreads();
        y[i] = s[t - 32];
    }@__syncthreads();
    y[i] = t < 32 ? s[63 - t] : s[t - 32];@""",
    ),
    Bug(
        "a barrier in a loop that some leave earlier",
        "barrier",
        "DIVERGENT-BARRIER",
        """
    __shared__ float s[64];
    float sum = 0;
    for (int k = t; k < @100@128 + t@; k += 64) {
        s[t] = x[k % n];
        __syncthreads();
        sum += s[63 - t];
        __syncthreads();
    }
    y[i] = sum;""",
    ),
    # ---------------------------------------------------------------- warps
    Bug(
        "a shuffle after some lanes have returned",
        "warp",
        "WARP-DEADLOCK",
        """
    @if (i >= n) return;
    float v = x[i];@float v = i < n ? x[i] : 0.0f;@
    for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
    if (i < n) y[i] = v;""",
        n=100,
    ),
    Bug(
        "a shuffle from a lane outside its mask",
        "warp",
        "WARP-SOURCE",
        """
    float v = x[i];
    if (t % 32 < 16) v += __shfl_sync(0x0000ffffu, v, @16@15@);
    y[i] = v;""",
    ),
    Bug(
        "a mask without the caller",
        "warp",
        "WARP-MASK",
        """
    float v = x[i];
    if (t % 32 < @17@16@) v += __shfl_xor_sync(0x0000ffffu, v, 1);
    y[i] = v;""",
    ),
    Bug(
        "a full mask in a warp that is not full",
        "warp",
        "WARP-MASK",
        """
    unsigned mask = @0xffffffffu@t < 32 ? 0xffffffffu : 0x0000ffffu@;
    float v = x[i];
    for (int d = 8; d > 0; d /= 2) v += __shfl_xor_sync(mask, v, d);
    y[i] = v;""",
        n=96,
        block=48,
    ),
    Bug(
        "votes with different masks",
        "warp",
        "WARP-DIVERGENT",
        """
    unsigned mask = t % 32 < 16 ? @0x00ffffffu@0x0000ffffu@ : @0xffff00ffu@0xffff0000u@;
    y[i] = __popc(__ballot_sync(mask, x[i] > 0));""",
    ),
    # ---------------------------------------------------------------- memory that nobody has written
    Bug(
        "a shared sum that does not begin at zero",
        "initialise",
        "UNINIT-SHARED",
        """
    __shared__ float sum;
    @@if (t == 0) sum = 0;@
    __syncthreads();
    if (i % 64 == 5) sum += x[i];
    __syncthreads();
    y[i] = sum;""",
    ),
    Bug(
        "a part of the tile is not loaded",
        "initialise",
        "UNINIT-SHARED",
        gemm(
            load="""if (row < 40) A[r][c] = k + c < 40 ? x[row * 40 + k + c] : 0.0f;
        @@else A[r][c] = 0;@"""
        ),
        **GEMM,
    ),
    Bug("added to fresh memory", "initialise", "UNINIT-GLOBAL", "    y[i] @+=@=@ x[i];"),
    Bug("the last elements are left out", "unwritten", "UNWRITTEN", "    if (i < n @/ 4 * 4@@) y[i] = x[i];", n=126),
    Bug(
        "the border is left out",
        "unwritten",
        "UNWRITTEN",
        """
    int r = i / 16, c = i % 16;
    if (r > 0 && r < 7 && c > 0 && c < 15) y[i] = x[i];
    @@else y[i] = 0;@""",
    ),
    Bug(
        "a grid one block short",
        "unwritten",
        "UNWRITTEN",
        "    for (int j = i; j < n; j += @n@gridDim.x * blockDim.x@) y[j] = x[j];",
        n=200,
    ),
    # ---------------------------------------------------------------- asynchronous copies
    Bug("nobody waits for a copy", "copy", "RACE", stages(wait="@@copy_async_wait<1>();@"), **STAGES),
    Bug("a wait for one group too few", "copy", "RACE", stages(wait="copy_async_wait<@2@1@>();"), **STAGES),
    Bug("copies that are in no group", "copy", "RACE", stages(commit="@@copy_async_commit();@"), **STAGES),
    Bug("no barrier behind the wait", "copy", "RACE", stages(after_wait="@@__syncthreads();@"), **STAGES),
    Bug("a copy into what is still read", "copy", "RACE", stages(after_use="@@__syncthreads();@"), **STAGES),
    Bug("a copy of one tile too many", "copy", "COPY-PENDING", stages(more="k < @4@3@"), **STAGES),
    Bug(
        "a wait behind the barrier",
        "copy",
        "RACE",
        stages(wait="@@copy_async_wait<1>();@", after_wait="__syncthreads(); @copy_async_wait<1>();@@"),
        **STAGES,
    ),
    Bug(
        "another thread's copy, which has arrived",
        "copy",
        "RACE",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t], &x[i], true);
    copy_async_commit();
    __syncthreads();
    copy_async_wait<0>();
    @@__syncthreads();@
    y[i] = t == 63 ? s[0] : 0.0f;""",
    ),
    Bug(
        "one thread copies into what others have read",
        "copy",
        "RACE",
        """
    __shared__ float s[64];
    s[t] = x[i];
    __syncthreads();
    float v = s[63 - t];
    @@__syncthreads();@
    if (t == 63) copy_async<4>(&s[5], &x[i], true);
    copy_async_commit();
    __syncthreads();
    copy_async_wait<0>();
    __syncthreads();
    y[i] = v + s[5];""",
    ),
    Bug(
        "zeros stored into what is being copied",
        "copy",
        "RACE",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t], &x[i], @true@t % 4 > 0@);
    @if (t % 4 == 0) s[t] = 0;@@
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    y[i] = s[63 - t];""",
    ),
    Bug(
        "two copies to one place",
        "copy",
        "RACE",
        """
    __shared__ float s[65];
    copy_async<4>(&s[t], &x[i], true);
    @copy_async<4>(&s[t + 1], &x[i], true);@if (t == 63) copy_async<4>(&s[t + 1], &x[i], true);@
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    y[i] = s[64 - t];""",
    ),
    Bug(
        "what is copied changes before the wait",
        "copy",
        "RACE",
        """
    __shared__ float s[64];
    y[i] = x[i];
    __syncthreads();
    copy_async<4>(&s[t], &y[i], true);
    copy_async_commit();
    @@copy_async_wait<0>();@
    __syncthreads();
    y[i ^ 1] = 1;
    __syncthreads();
    copy_async_wait<0>();
    y[i] += s[t];""",
    ),
    Bug(
        "a thread changes what it copies before the wait",
        "copy",
        "RACE",
        """
    __shared__ float s[64];
    y[i] = x[i];
    copy_async<4>(&s[t], &y[i], true);
    copy_async_commit();
    @@copy_async_wait<0>();@
    y[i] = x[i] + 1;
    copy_async_wait<0>();
    y[i] += s[t];""",
    ),
    Bug(
        "a copy from nowhere",
        "copy",
        "OOB-GLOBAL",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t], (const float*)0, @true@false@);
    copy_async_commit();
    copy_async_wait<0>();
    y[i] = s[t];""",
    ),
    Bug(
        "a copy from an odd place",
        "copy",
        "MISALIGNED",
        """
    __shared__ __align__(16) float s[64];
    if (t < 16) copy_async<16>(&s[t * 4], &x[@t@t * 4@], true);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    y[i] = s[63 - t];""",
    ),
    Bug(
        "a copy to an odd place",
        "copy",
        "MISALIGNED",
        """
    __shared__ __align__(16) float s[64 + 4];
    if (t < 32) copy_async<8>(&s[t * 2 + @1@2@], &x[i * 2 % n], true);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    y[i] = s[64 - t % 63];""",
    ),
    Bug(
        "a copy from beyond the end",
        "copy",
        "OOB-GLOBAL",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t], &x[i + 1], @true@i + 1 < n@);
    copy_async_commit();
    copy_async_wait<0>();
    y[i] = s[t];""",
    ),
    Bug(
        "a copy to beyond the end",
        "copy",
        "OOB-SHARED",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t + @1@0@], &x[i], true);
    copy_async_commit();
    copy_async_wait<0>();
    y[i] = s[t];""",
    ),
    Bug(
        "a copy of fresh memory",
        "copy",
        "UNINIT-GLOBAL",
        """
    __shared__ float s[64];
    copy_async<4>(&s[t], &@y@x@[i], true);
    copy_async_commit();
    copy_async_wait<0>();
    y[i] = s[t];""",
    ),
    # ---------------------------------------------------------------- matrix units
    Bug("a factor that is not rounded", "matrix unit", "UNROUNDED", matrix_unit(a="@x[{0}]@tf32(x[{0}])@"), **WARP),
    Bug("another that is not", "matrix unit", "UNROUNDED", matrix_unit(b="@x[{0}]@tf32(x[{0}])@"), **WARP),
    Bug(
        "a lane does not multiply",
        "matrix unit",
        "WARP-DEADLOCK",
        matrix_unit(call="if (t < @31@32@) multiply_add_tf32(d, a, b);"),
        **WARP,
    ),
    Bug(
        "a lane does something else",
        "matrix unit",
        "WARP-DIVERGENT",
        matrix_unit(call="if (t < @31@32@) multiply_add_tf32(d, a, b); else d[0] = __shfl_sync(0xffffffffu, d[0], 0);"),
        **WARP,
    ),
    Bug(
        "half a warp multiplies",
        "matrix unit",
        "WARP-MASK",
        "    @@if (t >= 32) return;@\n    t %= 32;" + matrix_unit(),
        n=128,
        grid=1,
        block=48,
    ),
    # ---------------------------------------------------------------- the rest
    Bug(
        "an input is scaled in place",
        "const",
        "WRITE-CONST",
        """
    @((float*)x)[i] *= 2;
    y[i] = x[i];@y[i] = 2 * x[i];@""",
    ),
    Bug(
        "float4 from an odd place",
        "alignment",
        "MISALIGNED",
        """
    float4 v = *(const float4*)(x + @t % 2@4 * (t % 2)@);
    y[i] = v.x + v.w;""",
    ),
    Bug(
        "doubles behind bytes in shared memory",
        "alignment",
        "MISALIGNED",
        """
    extern __shared__ char raw[];
    double* sums = (double*)(raw + @4@8@);
    sums[t] = x[i];
    __syncthreads();
    y[i] = (float)sums[63 - t];""",
        shared_mem=520,
    ),
    Bug("a shift by too much", "arithmetic", "SHIFT", "    y[i] = (float)(1u << @t@(t & 31)@);"),
    Bug(
        "division by a size of zero",
        "arithmetic",
        "DIVISION",
        "    y[i] = x[i] * (float)(64 / @(t / 8)@(t / 8 + 1)@);",
    ),
    Bug(
        "a loop that never ends",
        "endless",
        "TIME-LIMIT",
        """
    volatile int step = 32;
    float v = 0;
    while (step@>= 0@@) v += step, step = step / 2;
    y[i] = v;""",
    ),
    Bug(
        "an assertion",
        "assert",
        "ASSERT",
        """
    assert(index[i] < n / @8@4@);
    y[i] = x[index[i]];""",
    ),
]


# ---------------------------------------------------------------- running them


@cache
def module(which: int, mode: str) -> RawModule:
    """All broken, or all repaired kernels."""
    instructions = (kernel_folder() / "instructions.cuh").read_text()
    header = f'#line 1 "kernels/instructions.cuh"\n{instructions}\n'
    return RawModule(header + "".join(bug.source(which) for bug in BUGS), mode=mode)


def run(bug: Bug, which: int, mode: str, order: str) -> Guarded:
    """y.  Raises KernelError where the emulator finds a fault."""
    random = np.random.default_rng(0)
    x = array(random.standard_normal(bug.n), np.float32)
    index = array(random.integers(0, bug.n // 4, bug.n), np.int32)
    y = array(np.zeros(bug.n), np.float32) if bug.zeroed else fresh(bug.n)
    ends = which == REPAIRED or bug.kind != "TIME-LIMIT"
    with options(order=order, seed=3, time_limit=60.0 if ends else 0.3):
        launch(
            module(which, mode),
            bug.kernel,
            bug.grid,
            bug.block,
            x,
            index,
            y,
            np.int32(bug.n),
            shared_mem=bug.shared_mem,
        )
    if x.guards_hit() or index.guards_hit() or y.guards_hit():
        raise KernelError("guard zone overwritten")
    return y


def kinds(bug: Bug, which: int, mode: str, order: str) -> set[str]:
    """The kinds of the reports."""
    try:
        run(bug, which, mode, order)
    except KernelError as error:
        return {report.kind for report in error.reports} or {"GUARD"}
    return set()


def seen_in_fast_mode(bug: Bug, order: str) -> bool:
    """Is there a fault, or a wrong result, in fast mode too?"""
    if kinds(bug, BROKEN, "fast", order):
        return True
    right = run(bug, REPAIRED, "fast", "forward")
    return not np.allclose(run(bug, BROKEN, "fast", order), right, rtol=1e-5, atol=1e-6)


def main() -> None:
    width = max(len(bug.name) for bug in BUGS)
    found = seen = seen_somewhere = clean = 0
    for bug in BUGS:
        reports = [kinds(bug, BROKEN, "check", order) for order in ORDERS]
        is_found = all(bug.kind in one for one in reports)
        is_seen = [seen_in_fast_mode(bug, order) for order in ORDERS]
        is_clean = not any(kinds(bug, REPAIRED, "check", order) for order in ORDERS)
        found, clean = found + is_found, clean + is_clean
        seen, seen_somewhere = seen + is_seen[0], seen_somewhere + any(is_seen)
        marks = [
            "found" if is_found else "MISSED",
            "fast too" if is_seen[0] else "",
            "" if is_clean else "TWIN NOT CLEAN",
        ]
        columns = [
            f"{bug.name:<{width}}",
            f"{marks[0]:6}",
            f"{marks[1]:8}",
            ", ".join(sorted(set().union(*reports))),
            marks[2],
        ]
        print("  ".join(columns).rstrip())
    print(f"\n{len(BUGS)} planted bugs.  Check mode finds {found}, each in {len(ORDERS)} orders of the threads.")
    print(f"Fast mode shows {seen} (a fault or a wrong result), {seen_somewhere} in at least one of the orders.")
    print(f"Of the {len(BUGS)} kernels without the mistake, check mode passes {clean}.")


if __name__ == "__main__":
    main()
