"""CUDA files as they are: minigrad/cudasim/cuda_file.py.  The files are written here, in the manner of courses and
samples; results are compared with NumPy's."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest
from emulated import array, fresh, launch

from minigrad.cudasim import compiler, source
from minigrad.cudasim.cuda_file import CudaFile
from minigrad.cudasim.emission import unit
from minigrad.errors import ArgumentError, KernelError

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=f"the emulator {compiler.available()}")


def unit_of(text, name="k", **options):
    file = CudaFile(text, **options)
    return unit(file, file.kernel(name), name, "")


def read(module, name, dtype):
    return np.frombuffer(ctypes.string_at(*module.get_global(name)), dtype)


# ---------------------------------------------------------------- whole files

HOMEWORK = r"""
#include <cstdio>
#include <vector>
#include <cuda_runtime.h>
#include "helper_cuda.h"
#define CHECK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { std::printf("%s", "}{"); exit(1); } } while (0)
#define BLOCK 64
using namespace std;
typedef struct { FILE *file; int n; float *x; } Loader;
struct Host { std::vector<float> data; Host(int n) : data(n) { CHECK(cudaMalloc(&p, n)); } ~Host(); float *p; };
static const char *const text = R"x(" } __global__ void no(int) {)x";

__constant__ float taps[3];
static __device__ int hits[2] = {5, 6};
__shared__ float tile[BLOCK + 2];          // of the file, not of a function
extern __shared__ float scratch[];

template <typename T>
struct SharedMemory {
    __device__ inline operator T *() { extern __shared__ int __smem[]; return (T *)__smem; }
};
namespace filters {
namespace {
template <class T>
__device__ __forceinline__ static auto weigh(const T *x, int i) -> T {
    return taps[0] * x[i - 1] + taps[1] * x[i] + taps[2] * x[i + 1];
}
}
}
float weigh(std::vector<float> &v) { return v.at(0); }

extern "C" {
static __global__ void __launch_bounds__(BLOCK)
smooth(float *__restrict__ y, const float x[], int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x + 1;
    tile[t] = i < n ? x[i] : 0.f;
    if (threadIdx.x == 0) tile[0] = i > 0 ? x[i - 1] : 0.f;
    if (threadIdx.x == BLOCK - 1) tile[BLOCK + 1] = i + 1 < n ? x[i + 1] : 0.f;
    __syncthreads();
    float *own = SharedMemory<float>();
    own[threadIdx.x] = filters::weigh(tile, t);
    #pragma unroll
    for (int again = 0; again < 1; again++)
        if (i < n) { y[i] = scratch[threadIdx.x]; atomicAdd(&hits[1], 1); }
}
}

int main(int argc, char **argv) {
    Host host(10);
    vector<vector<int>> nested;
    smooth<<<dim3(4), BLOCK, BLOCK * sizeof(float)>>>(host.p, host.p, argc >> 1);
    auto done = [&](int code) { return code < 0 ? 1 : 0; };
    return done(text[0] == '{');
}
"""


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_a_homework_file_runs_as_it_is(mode):
    file = CudaFile(HOMEWORK, "smooth.cu")
    (kernel,) = file.kernels
    assert (kernel.name, kernel.template_parameters) == ("smooth", ())
    assert kernel.parameters == (("float*", "y"), ("const float*", "x"), ("int", "n"))
    assert (kernel.file, kernel.line) == (
        "smooth.cu",
        HOMEWORK.split("\n").index("smooth(float *__restrict__ y, const float x[], int n)") + 1,
    )
    module = file.module("smooth", mode=mode)
    assert module.get_function("smooth").static_shared == 66 * 4
    taps = np.array([0.25, 0.5, 1], np.float32)
    address, nbytes = module.get_global("taps")
    assert nbytes == 12
    ctypes.memmove(address, taps.tobytes(), nbytes)
    x = np.random.default_rng(1).standard_normal(100).astype(np.float32)
    y = fresh(100)
    before = read(module, "hits", np.int32)[1]
    launch(module, "smooth", 2, 64, y, array(x), np.int32(100), shared_mem=256)
    padded = np.pad(x, 1)
    np.testing.assert_allclose(y, 0.25 * padded[:-2] + 0.5 * x + padded[2:], rtol=1e-5, atol=1e-6)
    assert list(read(module, "hits", np.int32) - [0, before]) == [5, 100]
    with pytest.raises(KernelError, match=r"no __constant__ or __device__ variable 'tap' .* taps, hits"):
        module.get_global("tap")


def test_reports_name_the_file_and_line_that_the_user_sees(tmp_path):
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc/common.h").write_text(
        "#pragma once\n\n__device__ inline float at(const float *x, int i) {\n  return x[i];\n}\n"
    )
    path = tmp_path / "late.cu"
    path.write_text(
        '#include "inc/common.h"\r\n#include <stdio.h>\r\nint main() {\r\n return 0; }\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n'
        "__global__ void k(float *y, const float *x, int i) {\r\n  y[0] = at(x, 1);\r\n  y[i] = 1;\r\n}\r\n"
    )
    file = CudaFile.read(path)
    assert file.kernels[0].line == 12 and file.kernels[0].file == str(path)
    module = file.module("k")
    y, x = fresh(1), array([1, 2], np.float32)
    launch(module, "k", 1, 1, y, x, np.int32(0))
    assert y[0] == 1
    with pytest.raises(KernelError, match=r"late\.cu:14: OOB-GLOBAL.*byte 12 of argument 0"):
        launch(module, "k", 1, 1, y, x, np.int32(3))
    with pytest.raises(KernelError, match=r"/inc/common\.h:4: OOB-GLOBAL.*reads 4 bytes at byte 4 of argument 1"):
        launch(module, "k", 1, 1, y, array([1], np.float32), np.int32(0))


# ---------------------------------------------------------------- templates, names

TEMPLATES = r"""
template <typename T, int SIZE = 4, class Op = void> __global__ void fill(T *y, T value, const int *n);
template <typename T, int SIZE, class Op> __global__ void fill(T *y, T value, const int *n)
{ for (int i = 0; i < SIZE && i < n[0]; i++) y[i] = value * (T)SIZE + (T)(sizeof(T) == 8); }
template <int A, int B> __global__ void two(int *y) { y[0] = A - B; }
namespace a { __global__ void same(int *y) { *y = 1; } }
namespace b { __global__ void same(int *y) { *y = 2; } }
__global__ void over(float *y) { *y = 3; }
__global__ void over(double *y) { *y = 4; }
"""


def test_templates_are_said_or_deduced():
    file = CudaFile(TEMPLATES)
    assert file.kernel("fill").template_parameters == ("typename T", "int SIZE = 4", "class Op = void")
    n = array([100], np.int32)
    for dtype, values in ((np.float64, 4), (np.float32, 3)):
        y = array(np.zeros(10), dtype)
        launch(file.module("fill", (dtype, 3, "void"), "fast"), "fill", 1, 1, y, dtype(2), n)
        assert list(y[:values]) == [6 + (dtype == np.float64)] * 3 + [0] * (values - 3)
    y = array(np.zeros(10), np.float64)
    launch(
        file.module("fill", mode="fast", arguments=["float64", "float64", "int32"]), "fill", 1, 1, y, np.float64(2), n
    )
    assert list(y) == [9] * 4 + [0] * 6
    with pytest.raises(
        KernelError, match=r"kernel\.cu:5: kernel two is a template<int A, int B>, and nothing decides 'int B'"
    ):
        file.module("two", (1,))
    with pytest.raises(KernelError, match=r"two has 2 template parameters, .* are more"):
        file.module("two", (1, 2, 3))
    with pytest.raises(ArgumentError, match="is no argument of a template"):
        file.module("two", ("1; int x", 2))


def test_kernels_of_one_name_are_told_apart():
    file = CudaFile(TEMPLATES)
    y = array([0], np.int32)
    for name in ("a::same", "b::same"):
        launch(file.module(name, mode="fast"), name, 1, 1, y)
        assert y[0] == (1 if name[0] == "a" else 2)
    x, z = array([0], np.float32), array([0], np.float64)
    launch(file.module("over", mode="fast", arguments=["float64"]), "over", 1, 1, z)
    launch(file.module("over#1", mode="fast"), "over#1", 1, 1, x)
    assert (x[0], z[0]) == (3, 4)
    with pytest.raises(KernelError, match=r"there are 2 kernels 'same': .*:6, a::same; .*:7, b::same"):
        file.module("same")
    with pytest.raises(KernelError, match=r"there is no kernel 'none'; there are fill, two, same, over"):
        file.module("none")


def test_a_prototype_of_that_name_with_other_parameters_is_no_bar():
    text = "__global__ void k(int *y, int n, float f);\n__global__ void k(int *y, int n);\n"
    text += "__global__ void k(int *y, int n) { *y = n; }\n"
    y = array([0], np.int32)
    launch(CudaFile(text).module("k", mode="fast"), "k", 1, 1, y, np.int32(5))
    assert y[0] == 5
    text = "template <int N = 6> __global__ void k(int *);\ntemplate <int N> __global__ void k(int *y) { *y = N; }\n"
    launch(CudaFile(text).module("k", mode="fast"), "k", 1, 1, y)
    assert y[0] == 6


def test_options_reach_the_preprocessor():
    text = (
        "#if __CUDA_ARCH__ >= WANTED\n__global__ void young(int *y) {}\n#else\n__global__ void old(int *y) {}\n#endif\n"
    )
    assert CudaFile(text, defines=["WANTED=700"]).kernels[0].name == "young"
    assert CudaFile(text, defines=["WANTED=700"], arch=600).kernels[0].name == "old"
    with pytest.raises(ArgumentError, match="defines: 'a b' is no NAME"):
        CudaFile(text, defines=["a b"])
    with pytest.raises(KernelError, match=r"odd\\nname\.cu: there is no kernel in this file"):
        CudaFile("int main() {}", "odd\nname.cu")
    with pytest.raises(KernelError, match=r"kernel\.cu:2:.*too old"):
        CudaFile("\n#error too old\n__global__ void k() {}")


def test_what_does_not_compile_is_said_with_its_line_and_the_headers_that_were_missing():
    text = '#include "mine/ops.cuh"\n#include <vector>\n\n__global__ void k(float *y) { *y = my_op(1.f); }\n'
    with pytest.raises(KernelError, match=r"(?s)kernel\.cu:4:.*my_op.*not found.*: mine/ops\.cuh\.  Their"):
        CudaFile(text).module("k")


# ---------------------------------------------------------------- who waits

# Of each dress the file, in which K { stands for the head of the kernel.
WAITING = {
    "a const method": r"""
struct S { int n;
__device__ int go() const { __syncthreads(); return n; } };
K { S s{1}; y[0] = s.go(); }
""",
    "a trailing return type": r"""
__device__ auto go() -> int { __syncthreads(); return 1; }
K { y[0] = go(); }
""",
    "a constructor": r"""
struct S { int n;
__device__ S() : n{1} { __syncthreads(); } };
K { S s; y[0] = s.n; }
""",
    "a destructor": r"""
struct S { __device__ ~S() { __syncthreads(); } };
K { S s; }
""",
    "a call operator": r"""
struct S { __device__ int operator()(int i) const noexcept { __syncthreads(); return i; } };
K { y[0] = S()(1); }
""",
    "an operator outside": r"""
struct S { int n; };
__device__ S operator+(S a, S b) { __syncthreads(); return a; }
K { S s{1}; y[0] = (s + s).n; }
""",
    "a conversion": r"""
struct S { __device__ operator int() { __syncthreads(); return 1; } };
K { y[0] = S(); }
""",
    "a lambda": r"""
K { auto go = [&](int i) { __syncthreads(); return i; }; y[0] = go(1); }
""",
    "a lambda of the file": r"""
constexpr auto go = [](int i) { __syncthreads(); return i; };
K { y[0] = go(1); }
""",
    "a macro": r"""
#define GO() \
  do { __syncwarp(); } while (0)
K { GO(); }
""",
    "a template's argument": r"""
struct S { __device__ static void go() { __syncthreads(); } };
template <class F> __device__ void call() { F::go(); }
K { call<S>(); }
""",
    "a method outside": r"""
struct S { __device__ int go(); };
__device__ int S::go() { __syncthreads(); return 1; }
K { S s; y[0] = s.go(); }
""",
    "requires": r"""
template <class T> requires true __device__ T go(T x) noexcept(true) { __syncthreads(); return x; }
K { y[0] = go(1); }
""",
}


@pytest.mark.parametrize("dress", WAITING)
def test_a_barrier_is_seen_in_every_dress(dress):
    text = WAITING[dress].replace("\nK {", "\n__global__ void k(int *y) {")
    fence = "__threadfence()"
    for code, waits in ((text, True), (text.replace("__syncthreads()", fence).replace("__syncwarp()", fence), False)):
        assert unit_of(code).entries[0].waits == waits
        assert source.entries(code.replace("__global__", 'extern "C" __global__'))[0].waits == waits


def test_others_of_the_file_that_wait_do_not_slow_a_kernel():
    text = "__device__ void wait() { __syncthreads(); }\n__global__ void slow(int *y) { wait(); }\n"
    text += "__global__ void k(int *y) {}\n"
    assert not unit_of(text).entries[0].waits and unit_of(text, "slow").entries[0].waits


# ---------------------------------------------------------------- refusals

REFUSED = {
    'asm volatile("mov.u32 %0, %laneid;" : "=r"(y[0]));': r"asm volatile\(\"mov.*inline assembly: write it in C\+\+",
    "child<<<1, 1>>>(y);": "a launch from within a kernel: launch from the host",
    "y[0] = tex2D<float>(t, 1, 2);": "a texture: read from an array",
    "cub::WarpReduce<int> reduce;": "a library of the device: write the loop",
    "curandState state; curand_init(1, 2, 3, &state);": "cuRAND: pass an array of random numbers",
    "nvcuda::wmma::fill_fragment(y, 0);": "matrix units: write the product as loops",
    "cuda::barrier<cuda::thread_scope_block> b;": r"libcu\+\+: use __syncthreads",
    "cudaDeviceSynchronize();": "a call of CUDA's runtime in a kernel",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_supported_is_named_with_its_line(line):
    text = f"__global__ void child(int *y) {{}}\n\n__device__ void helper(int *y, int t) {{\n  {line}\n}}\n"
    text += "__global__ void k(int *y, int t) { helper(y, t); }\n"
    with pytest.raises(KernelError, match=rf"kernel\.cu:4: .*{REFUSED[line]}"):
        unit_of(text)
    assert unit_of(text, "child")  # the others of the file run


# ---------------------------------------------------------------- numbers of 16 bits

HALF = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
__global__ void widen(float *y, float *z, const unsigned short *x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = __half2float(__ushort_as_half(x[i])); z[i] = __bfloat162float(__ushort_as_bfloat16(x[i]));
}
__global__ void narrow(half *y, __nv_bfloat16 *z, const float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) { y[i] = __float2half(x[i]); z[i] = __float2bfloat16_rn(x[i]); }
}
__global__ void compute(half2 *y, const half *a, const half *b, const half *c, __nv_bfloat16 *z, const float *f) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[3 * i] = __hadd2(__halves2half2(a[i], c[i]), __half2half2(b[i]));
    y[3 * i + 1] = half2(__hmul(a[i], b[i]), a[i] / b[i]);
    y[3 * i + 2] = half2(__hfma(a[i], b[i], c[i]), a[i] < b[i] ? __hneg(a[i]) : hsqrt(__habs(a[i])));
    z[i] = __float2bfloat16(f[i]) * __nv_bfloat16(3);
}
"""


def nearest(bits_to_float, value, guess):
    """The bits of the nearest number, ties to even, by fractions; guess: bits close to it."""
    near = [b for b in range(max(guess - 2, 0), guess + 3) if np.isfinite(bits_to_float(b))]
    return min(near, key=lambda b: (abs(Fraction(float(bits_to_float(b))) - abs(value)), b & 1))


def bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def test_every_half_and_every_bfloat16_widens_and_narrows_exactly():
    file = CudaFile(HALF)
    bits = np.arange(1 << 16, dtype=np.uint16)
    y, z = fresh(1 << 16), fresh(1 << 16)
    launch(file.module("widen", mode="fast"), "widen", 256, 256, y, z, array(bits))
    assert np.array_equal(y, bits.view(np.float16).astype(np.float32), equal_nan=True)
    assert np.array_equal(z.view(np.uint32), bits.astype(np.uint32) << 16)

    # All values, what lies in the middle between neighbours, and the floats just beside.
    halves = bits.view(np.float16).astype(np.float32)
    floats = (bits.astype(np.uint32) << 16).view(np.float32)
    points = np.concatenate([halves, floats, (bits.astype(np.uint32) << 16 | 0x8000).view(np.float32)])
    with np.errstate(all="ignore"):
        points = np.concatenate(
            [points, (halves[:-1] + halves[1:]) / 2, np.float32([65519.996, 65520, 1e38, 3.3961e38])]
        )
        points = np.concatenate(
            [points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))]
        )
        expected = points.astype(np.float16)
    y, z = fresh(points.size, np.float16), fresh(points.size, np.uint16)
    launch(
        file.module("narrow", mode="fast"),
        "narrow",
        points.size // 256 + 1,
        256,
        y,
        z,
        array(points),
        np.int32(points.size),
    )
    nan = np.isnan(points)
    assert np.array_equal(y.view(np.uint16)[~nan], expected.view(np.uint16)[~nan])
    assert np.array_equal(z[~nan], bfloat16(points[~nan]))
    assert (y.view(np.uint16)[nan] == 0x7FFF).all() and (z[nan] == 0x7FFF).all()  # CUDA's NaN


def test_sums_products_and_multiply_adds_of_halves_are_rounded_once():
    rng = np.random.default_rng(3)
    n = 1024
    a, b, c = (rng.standard_normal(n).astype(np.float16) for _ in range(3))
    a[: n // 2], b[: n // 2] = 1 + rng.integers(0, 1024, n // 2) / 1024, 1 + rng.integers(0, 1024, n // 2) / 1024
    c[: n // 2] = rng.choice([2.0**-24, -(2.0**-24), 2.0**-14, 0.0], n // 2)  # decides ties that a double cannot hold
    a[0], b[0], c[0] = 1 + 2**-10, 1 + 2**-1, 2**-24
    f = rng.standard_normal(n).astype(np.float32)
    y, z = fresh((3 * n, 2), np.float16), fresh(n, np.uint16)
    module = CudaFile(HALF).module("compute")
    launch(module, "compute", n // 128, 128, y, array(a), array(b), array(c), z, array(f))
    y = y.reshape(n, 6)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y[:, 0], a + b)
        np.testing.assert_array_equal(y[:, 1], c + b)
        np.testing.assert_array_equal(y[:, 2], a * b)
        np.testing.assert_array_equal(y[:, 3], a / b)
        np.testing.assert_array_equal(y[:, 5], np.where(a < b, -a, np.sqrt(np.abs(a))))
    half = np.arange(1 << 15, dtype=np.uint16).view(np.float16)
    for i in range(n):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        guess = int(np.float16(abs(float(exact))).view(np.uint16))
        assert abs(y[i, 4]).view(np.uint16) == nearest(lambda bits: half[bits], exact, guess), (a[i], b[i], c[i])
        assert exact == 0 or (y[i, 4] < 0) == (exact < 0) or y[i, 4] == 0
    widened = (bfloat16(f).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(z, bfloat16(widened * np.float32(3)))


# ---------------------------------------------------------------- intrinsics

INTRINSICS = r"""
#include <stdint.h>
#include <math_constants.h>
__global__ void bits(uint32_t *out, const uint *x, const uint *y, const unsigned *s) {
    int i = threadIdx.x;
    uint32_t *o = out + 12 * i;
    o[0] = __umul24(x[i], y[i]); o[1] = (uint)__mul24((int)x[i], (int)y[i]); o[2] = __byte_perm(x[i], y[i], s[i]);
    o[3] = (uint)__dp4a((int)x[i], (int)y[i], (int)s[i]); o[4] = __dp4a(x[i], y[i], s[i]);
    o[5] = __popc(x[i]); o[6] = __clz(x[i]); o[7] = __ffs(x[i]); o[8] = __brev(x[i]);
    o[9] = __usad(x[i], y[i], s[i]); o[10] = __vadd4(x[i], y[i]); o[11] = __funnelshift_lc(x[i], y[i], s[i] & 63);
}
__global__ void rounded(float *out, const float *x, const float *y) {
    int i = threadIdx.x;
    float *o = out + 9 * i;
    o[0] = __fadd_rd(x[i], y[i]); o[1] = __fadd_ru(x[i], y[i]); o[2] = __fadd_rz(x[i], y[i]);
    o[3] = __fmul_rd(x[i], y[i]); o[4] = __fmul_ru(x[i], y[i]); o[5] = __fdiv_rz(x[i], y[i]);
    o[6] = __frcp_rn(x[i]); o[7] = __fsub_rd(x[i], y[i]); o[8] = __fmaf_ru(x[i], y[i], CUDART_PI_F);
}
"""


def test_intrinsics_of_integers():
    rng = np.random.default_rng(5)
    x, y, s = (rng.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(3))
    x[:4] = 0, 1, 1 << 31, (1 << 32) - 1
    out = fresh((64, 12), np.uint32)
    launch(CudaFile(INTRINSICS).module("bits", mode="fast"), "bits", 1, 64, out, array(x), array(y), array(s))
    for o, a, b, c in zip(out.tolist(), x.tolist(), y.tolist(), s.tolist()):
        both = list(a.to_bytes(4, "little") + b.to_bytes(4, "little"))
        picks = [c >> 4 * k & 15 for k in range(4)]
        chosen = [(255 if both[p & 7] & 128 else 0) if p & 8 else both[p & 7] for p in picks]
        low = [((v & 0xFFFFFF) ^ 0x800000) - 0x800000 for v in (a, b)]
        signed = [np.array([v], np.uint32).view(np.int8).astype(int) for v in (a, b)]
        unsigned = [np.array([v], np.uint32).view(np.uint8).astype(int) for v in (a, b)]
        expected = [
            (a & 0xFFFFFF) * (b & 0xFFFFFF),
            low[0] * low[1],
            int.from_bytes(bytes(chosen), "little"),
            int(signed[0] @ signed[1]) + c,
            int(unsigned[0] @ unsigned[1]) + c,
            bin(a).count("1"),
            32 - a.bit_length(),
            (a & -a).bit_length(),
            int(f"{a:032b}"[::-1], 2),
            abs(a - b) + c,
            int.from_bytes(((unsigned[0] + unsigned[1]) % 256).astype(np.uint8).tobytes(), "little"),
            a if c & 32 else ((b << 32 | a) << (c & 31)) >> 32,
        ]
        assert o == [value % (1 << 32) for value in expected]


def directed(value, how):
    """The float below ("d"), above ("u") or towards zero from an exact fraction."""
    near = np.float32(float(value))
    above, below = Fraction(float(near)) > value, Fraction(float(near)) < value
    down = how == "d" or (how == "z" and value > 0)
    if down and above:
        return np.nextafter(near, np.float32(-np.inf))
    return np.nextafter(near, np.float32(np.inf)) if not down and below else near


def test_rounding_modes():
    rng = np.random.default_rng(6)
    x, y = (rng.standard_normal(64).astype(np.float32) for _ in range(2))
    y[:8] *= np.float32(1e-20)  # lost in the sum, but for its sign
    x[8], y[8] = 1 + 2**-23, 2.0**-24
    out = fresh((64, 9))
    launch(CudaFile(INTRINSICS).module("rounded", mode="fast"), "rounded", 1, 64, out, array(x), array(y))
    pi = Fraction(float(np.float32(3.141592654)))
    for o, a, b in zip(out, x, y):
        p, q = Fraction(float(a)), Fraction(float(b))
        expected = [directed(p + q, "d"), directed(p + q, "u"), directed(p + q, "z"), directed(p * q, "d")]
        expected += [directed(p * q, "u"), directed(p / q, "z"), np.float32(1) / a, directed(p - q, "d")]
        expected += [directed(p * q + pi, "u")]
        np.testing.assert_array_equal(o, expected)


GROUPS = r"""
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
__device__ int total(cg::thread_group g, int v, int *s) {
    s[g.thread_rank()] = v;
    g.sync();
    int sum = 0;
    for (int i = 0; i < g.size(); i++) sum += s[i];
    g.sync();
    return sum;
}
__global__ void k(unsigned *out, const int *x) {
    __shared__ int s[64];
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
    unsigned i = block.thread_rank(), *o = out + 10 * i;
    o[0] = cg::reduce(tile, x[i], cg::plus<int>());
    o[1] = cg::inclusive_scan(tile, x[i]);
    o[2] = tile.ballot(x[i] & 1);
    o[3] = tile.shfl_down(x[i], 1);
    o[4] = __match_any_sync(0xffffffff, x[i] % 3);
    int all; __match_all_sync(0xffffffff, x[i] >= 0, &all); o[5] = all;
    o[6] = __reduce_max_sync(0xffffffffu, x[i]);
    o[7] = total(block, x[i], s);
    cg::coalesced_group here = cg::coalesced_threads();
    o[8] = here.size();
    o[9] = tile.meta_group_rank() * 100 + tile.thread_rank();
    block.sync();
}
"""


def test_cooperative_groups_and_warps():
    x = np.random.default_rng(7).integers(0, 50, 64).astype(np.int32)
    out = fresh((64, 10), np.uint32)
    module = CudaFile(GROUPS).module("k")
    launch(module, "k", 1, 64, out, array(x))
    tiles, warps, lanes = x.reshape(8, 8), x.reshape(2, 32), np.arange(64)
    np.testing.assert_array_equal(out[:, 0], np.repeat(tiles.sum(1), 8))
    np.testing.assert_array_equal(out[:, 1], tiles.cumsum(1).ravel())
    np.testing.assert_array_equal(out[:, 2], np.repeat(((tiles & 1) << np.arange(8)).sum(1), 8))
    np.testing.assert_array_equal(out[:, 3], np.where(lanes % 8 == 7, x, np.roll(x, -1)))
    same = (warps[:, :, None] % 3 == warps[:, None, :] % 3).astype(np.uint64)
    np.testing.assert_array_equal(out[:, 4], (same << np.arange(32, dtype=np.uint64)).sum(2).ravel())
    np.testing.assert_array_equal(out[:, 5], 1)
    np.testing.assert_array_equal(out[:, 6], np.repeat(warps.max(1), 32))
    np.testing.assert_array_equal(out[:, 7], x.sum())
    np.testing.assert_array_equal(out[:, 8], 32)
    np.testing.assert_array_equal(out[:, 9], lanes // 8 * 100 + lanes % 8)


# ---------------------------------------------------------------- memory, time, the rest

REST = r"""
#include <assert.h>
#include "helper_math.h"
extern __shared__ __align__(16) unsigned char raw[];
struct Node { int value; Node *next; __device__ Node(int v, Node *n) : value(v), next(n) {} };
__global__ void k(float4 *y, volatile float *v, int n) {
    volatile __shared__ float last[1];
    Node *list = nullptr;
    for (int i = 0; i < n; i++) list = new Node(i, list);
    int *squares = (int *)malloc(n * sizeof(int));
    assert(squares != NULL && list->next);
    float sum = 0;
    while (list) {
        Node *next = list->next;
        squares[list->value] = list->value * list->value;
        delete list;
        list = next;
    }
    for (int i = 0; i < n; i++) sum += __ldcg(&squares[i]);
    free(squares);
    long long begin = clock64();
    while (clock64() - begin < 100000) {}
    last[0] = sum;
    float2 *pairs = reinterpret_cast<float2 *>(raw);
    pairs[n] = make_float2(pow(2, 3), fmaxf(last[0], 1));
    y[0] = y[0] * 2.0f + make_float4(pairs[n].x, pairs[n].y, max(1, 2L), float(INT_MAX > FLT_EPSILON));
    *v = INFINITY;
}
"""


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_heaps_clocks_vectors_and_much_shared_memory(mode):
    module = CudaFile(REST).module("k", mode=mode)
    y, v = array([1, 2, 3, 4], np.float32), array([0], np.float32)
    for _ in range(2):
        y[:] = 1, 2, 3, 4
        launch(module, "k", 1, 1, y, v, np.int32(5), shared_mem=48)
        assert list(y) == [10, 34, 8, 9] and np.isinf(v[0])
    with pytest.raises(
        KernelError, match=r"60000 of dynamic shared memory; a block has 49152; .*max_dynamic_shared_size_bytes"
    ):
        launch(module, "k", 1, 1, y, v, np.int32(5), shared_mem=60000)
    function = module.get_function("k")
    function.max_dynamic_shared_size_bytes = 227 * 1024
    launch(module, "k", 1, 1, y, v, np.int32(5), shared_mem=200_000)
    assert y[0] == 28
    function.max_dynamic_shared_size_bytes = 228 * 1024
    with pytest.raises(KernelError, match="no GPU gives a block more than 232448"):
        launch(module, "k", 1, 1, y, v, np.int32(5), shared_mem=48)


def test_writing_to_a_constant_is_found():
    text = "__constant__ float c[2];\n__global__ void k(float *y) {\n  ((float *)c)[1] = *y;\n}\n"
    with pytest.raises(KernelError, match=r"kernel\.cu:3: .*constant 'c'"):
        launch(CudaFile(text).module("k"), "k", 1, 1, array([1], np.float32))


def test_a_function_that_another_file_defines_is_named():
    text = "__device__ float elsewhere(float *x);\n__global__ void k(float *y) { *y = elsewhere(y); }\n"
    with pytest.raises(KernelError, match=r"declare and do not define: elsewhere\(float\*\)"):
        CudaFile(text).module("k", mode="fast")
