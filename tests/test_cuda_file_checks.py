"""What check mode finds in files of others, where it is not plain to see: structures by value, variables that nobody
has set, __restrict__, launch bounds, locks, local arrays.  And what it does not find."""

import numpy as np
import pytest

from minigrad.cudasim import compiler, empty, run, second_run
from minigrad.errors import KernelError

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))

X = np.random.default_rng(0).standard_normal(64).astype(np.float32)


def reports(*arguments, **settings):
    """Kind and text of each report; "" where there is none."""
    try:
        run(*arguments, **settings)
    except KernelError as error:
        return [(report.kind, f"{report.line}: {report.text}") for report in error.reports]
    return []


def kinds(*arguments, **settings):
    return {kind for kind, _ in reports(*arguments, **settings)}


# ---------------------------------------------------------------- structures by value

PAIRS = """
struct Pair { float m, d; };
__device__ Pair longest(int n, Pair p) { return n ? longest(n - 1, p) : p; }

__device__ Pair joined(Pair a, Pair b) {
    Pair& most = a.m > b.m ? a : b;
    Pair& least = a.m > b.m ? b : a;
    return {most.m, most.d + least.d * __expf(least.m - most.m) * sqrtf(__powf(1.0f, __sinf(most.m)))};
}

__global__ void handed(const float* x, float* y) {
    __shared__ Pair pairs[64];
    int t = threadIdx.x;
    pairs[t] = {x[t], 1};
    BARRIER
    if (t == 0) {
        Pair all = pairs[0];
        for (int i = 1; i < 64; i++) all = joined(all, pairs[i]);
        y[0] = all.m, y[1] = all.d;
    }
}

__global__ void handed_back(const float* x, float* y) {
    __shared__ Pair pairs[65];
    int t = threadIdx.x;
    pairs[64] = {0, 0};
    __syncthreads();
    pairs[WHERE] = joined({x[t], 1}, {x[63 - t], 1});
    __syncthreads();
    y[t] = pairs[t].d + pairs[64].d;
}
"""


def test_structures_that_are_handed_to_a_function():
    right = run(PAIRS, "handed", 1, 64, X, empty(2), defines=["BARRIER=__syncthreads();"])
    np.testing.assert_allclose(right["y"], [X.max(), np.exp(X - X.max()).sum()], rtol=1e-5)
    for order in ("forward", "reversed", "random"):
        found = kinds(PAIRS, "handed", 1, 64, X, empty(2), defines=["BARRIER="], order=order)
        assert "RACE" in found, order
    assert "UNINIT-SHARED" in kinds(PAIRS, "handed", 1, 64, X, empty(2), defines=["BARRIER="], order="forward")


def test_structures_that_a_function_returns():
    assert reports(PAIRS, "handed_back", 1, 64, X, empty(64), defines=["WHERE=t"]) == []
    assert kinds(PAIRS, "handed_back", 1, 64, X, empty(64), defines=["WHERE=t/2"]) >= {"RACE"}


# ---------------------------------------------------------------- variables that nobody has set

UNSET = """
__constant__ float taps[3] = {1, 2, 4};
__device__ int launches = 3, offset = 3;
__device__ int* where = &launches;

__global__ void weighed(const float* x, float* y) {
    float sum BEGIN;
    for (int k = 0; k < 3; k++) sum += taps[k] * x[threadIdx.x];
    if (threadIdx.x == 0) atomicAdd(&launches, 1);
    y[threadIdx.x] = sum + offset;
}
__global__ void counted(const float* x, unsigned long long* n) {
    unsigned count BEGIN;
    for (int k = threadIdx.x; k < 64; k += blockDim.x) count += x[k] > 0;
    count = __reduce_add_sync(__activemask(), count);
    if (threadIdx.x % 32 == 0) atomicAdd(n, (unsigned long long)count);
}
__global__ void vectors(const float4* x, float4* y) {
    float3 sum BEGIN;
    for (int k = 0; k < 4; k++) sum.x += x[k].x, sum.y += x[k].y, sum.z += x[k].w;
    y[threadIdx.x] = make_float4(sum.x, sum.y, sum.z, 0);
}
__global__ void tagged(const float* x, int* y) {
    int tag BEGIN;
    tag += x[threadIdx.x] > 9;
    y[threadIdx.x] = 1000000 + (tag & 2);
}
__global__ void largest(const float* x, float* y) {
    float most BEGIN;
    for (int k = 0; k < 8; k++) most = most > x[threadIdx.x * 8 + k] ? most : x[threadIdx.x * 8 + k];
    y[threadIdx.x] = most;
}
__global__ void binned(const float* x, int* y) {
    int bins[4] BEGIN;
    for (int k = 0; k < 8; k++) bins[(k + threadIdx.x) % 4] += x[k] > 0;
    y[threadIdx.x] = bins[threadIdx.x % 4];
}
__global__ void leader(int* next, int* y) {
    int first BEGIN;
    if (threadIdx.x == 5) first = atomicAdd(next, 32);
    y[__shfl_sync(~0u, first, 5) + threadIdx.x] = threadIdx.x;
}
__global__ void pointed(int* y) {
    int sum BEGIN;
    sum += *where;
    y[threadIdx.x] = sum;
}
"""


def unset(kernel, block, *arguments, begin="", **settings):
    return reports(UNSET, kernel, 1, block, *arguments, defines=[f"BEGIN={begin}"], **settings)


@pytest.mark.parametrize(
    "kernel, block, arguments, place",
    [
        ("weighed", 64, (X, empty(64)), "8: y (parameter 2, float32 (64,)) depends on a local variable .*'sum'"),
        ("counted", 64, (X, np.zeros(1, np.uint64)), "13: n .* depends on a local variable that .*'count'"),
        ("tagged", 64, (X, empty(64, np.int32)), "y .* depends on a local variable .*'tag'"),
        ("binned", 8, (X, empty(8, np.int32)), "y .* depends on a local variable that nobody has set"),
        ("vectors", 8, (X.reshape(16, 4), empty((8, 4))), "y .* depends on a local variable that nobody has set"),
    ],
)
def test_a_result_of_what_nobody_has_set(kernel, block, arguments, place):
    ((kind, text),) = unset(kernel, block, *arguments)
    assert kind == "UNINIT-LOCAL"
    for part in place.split(".*"):
        assert part in text
    assert unset(kernel, block, *arguments, begin="= {}") == []


def test_the_second_run_has_the_variables_of_the_first():
    source = UNSET.replace("y[threadIdx.x] = sum", "y[threadIdx.x] = 0 * sum")
    offset = np.array([5], np.int32)
    result = run(source, "weighed", 1, 64, X, empty(64), defines=["BEGIN="], variables={"offset": offset})
    assert (result["y"] == 5).all() and "MAYBE-UNSET: 'sum'" in result.notes[0]


def test_what_is_only_suspected_is_a_note():
    zeros = np.zeros(1, np.int32), np.zeros(32, np.int32)
    result = run(UNSET, "leader", 1, 32, *zeros, defines=["BEGIN="], order="forward")
    (note,) = result.notes
    assert "MAYBE-UNSET: 'first' may be read before it is set, says g++" in note and note.startswith("kernel.cu:39: ")
    assert run(UNSET, "leader", 1, 32, *zeros, defines=["BEGIN== 0"], order="forward").notes == []
    result = run(UNSET, "largest", 1, 8, abs(X), empty(8), defines=["BEGIN="])  # a 0 would do no harm here
    assert "MAYBE-UNSET: 'most'" in result.notes[0]
    assert unset("largest", 8, -abs(X), empty(8))[0][0] == "UNINIT-LOCAL"
    # Variables with addresses of others are not taken to another library.
    result = run(UNSET, "pointed", 1, 4, np.zeros(4, np.int32), defines=["BEGIN="])
    assert "MAYBE-UNSET: 'sum'" in result.notes[0]


LINKS = """
struct Node { int value; Node* next; };
__device__ int pool[4], spare;
__device__ int* last;
__global__ void links(int* next, int* y, int n) {
    int first BEGIN;
    if (threadIdx.x == 5) {
        first = atomicAdd(next, 32), last = pool + 2;
        Node* list = new Node{1, nullptr};
        for (int i = 1; i < n; i++) list = new Node{i + 1, list};
        for (Node* node = list; node; node = node->next) y[32] += node->value;
    }
    y[__shfl_sync(~0u, first, 5) + threadIdx.x] = threadIdx.x;
}
"""


@pytest.mark.parametrize("begin", ["", "= 0"])
def test_addresses_that_a_kernel_has_stored_are_others_in_another_library(monkeypatch, begin):
    seen = []
    monkeypatch.setattr(second_run, "_may_be_unset", lambda area, kind: bool(seen.append(area.label)) or True)
    result = run(LINKS, "links", 1, 32, np.zeros(1, "i4"), np.zeros(33, "i4"), 4, defines={"BEGIN": begin})
    assert result["y"][32] == 10 and result["y"][31] == 31
    assert len(result.notes) == (not begin) and bool(seen) == bool(begin)  # what is suspected needs no second look


# ---------------------------------------------------------------- what the text promises

PROMISES = """
#define WARPS 2
__global__ void doubled(const float* __restrict__ x, float* __restrict__ y, int n) {
    int i = threadIdx.x;
    if (i < n) { y[i] = 2 * x[i]; y[i] += x[i]; }
}
__global__ void in_place(const float* __restrict__ x, float* __restrict__ y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = 3 * x[threadIdx.x];
}
__global__ void plain(const float* x, float* y, int n) {
    if (threadIdx.x < n) { y[threadIdx.x] = 2 * x[threadIdx.x]; y[threadIdx.x] += x[threadIdx.x]; }
}
__global__ __launch_bounds__(WARPS * 16) void bounded(float* y) { y[threadIdx.x] = 1; }
__global__ void __launch_bounds__(64, 4) enough(float* y) { y[threadIdx.x] = 1; }
namespace tiles {
constexpr int LANES = 32;
template <typename T, int ROWS, int COLUMNS = LANES>
__global__ void __launch_bounds__(ROWS * COLUMNS / 2) of(T* y) { y[threadIdx.x] = 1; }
}
"""


def test_restrict():
    x = X.copy()
    ((kind, text),) = reports(PROMISES, "doubled", 1, 64, x, x, 64)
    assert kind == "RESTRICT" and "overlaps another array, both are __restrict__" in text and text.startswith("3: ")
    assert reports(PROMISES, "doubled", 1, 64, x, empty(64), 64) == []
    assert reports(PROMISES, "in_place", 1, 64, x, x, 64) == []  # nothing depends on it
    assert reports(PROMISES, "plain", 1, 64, x, x, 64) == []  # nothing is promised
    np.testing.assert_array_equal(run(PROMISES, "plain", 1, 64, x, x, 64)["y"], 4 * x)


def test_launch_bounds():
    assert reports(PROMISES, "bounded", 1, 64, empty(64)) == [
        ("LAUNCH", "13: __launch_bounds__ of the kernel allows 32 threads in a block")
    ]
    assert reports(PROMISES, "bounded", 1, 32, empty(32)) == []
    assert reports(PROMISES, "enough", 1, 64, empty(64)) == []
    text = "18: __launch_bounds__ of the kernel allows 48 threads in a block"
    assert reports(PROMISES, "of", 1, 64, empty(64), templates=("float", 3)) == [("LAUNCH", text)]
    assert reports(PROMISES, "of", 1, 64, empty(64), templates=("float", 4)) == []


# ---------------------------------------------------------------- locks

LOCKS = """
#ifndef FENCE
#define FENCE __threadfence();
#endif
#ifndef RELEASE
#define RELEASE atomicExch(&mutex, 0);
#endif
__device__ int mutex = 0;
struct Lock {
    int* word;
    __device__ void lock() { while (atomicCAS(word, 0, 1) != 0); FENCE }
    __device__ void unlock() { FENCE RELEASE }
};
__global__ void one_of_each_block(float* total, const float* x) {
    __shared__ float part;
    if (threadIdx.x == 0) part = 0;
    __syncthreads();
    atomicAdd(&part, x[blockIdx.x * blockDim.x + threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) {
        Lock lock{&mutex};
        lock.lock();
        *total += part;
        lock.unlock();
    }
}
__global__ void all_threads(int* total) {
    bool waits = true;
    while (waits) {
        if (atomicExch(&mutex, 1) == 0) {
            FENCE
            *(volatile int*)total = *(volatile int*)total + 1;
            FENCE
            RELEASE
            waits = false;
        }
    }
}
__global__ void without(int* total) { *total = *total + 1; }
"""


def locked(kernel, *arguments, **settings):
    return reports(LOCKS, kernel, 2, 32, *arguments, **settings)


def test_locks_in_their_correct_form():
    total = run(LOCKS, "one_of_each_block", 2, 32, np.zeros(1, np.float32), X)["total"]
    np.testing.assert_allclose(total, [X.sum()], rtol=1e-5)
    assert run(LOCKS, "all_threads", 2, 32, np.zeros(1, np.int32))["total"] == [64]


def test_locks_that_are_none():
    zero = np.zeros(1, np.int32)
    found = locked("one_of_each_block", np.zeros(1, np.float32), X, defines=["FENCE="])
    assert {kind for kind, _ in found} == {"RACE"} and "blocks run in any order" in found[0][1]
    assert {kind for kind, _ in locked("all_threads", zero, defines=["FENCE="])} == {"RACE"}
    assert "RACE" in {kind for kind, _ in locked("without", zero)}
    ((kind, text),) = locked("all_threads", zero, defines=["RELEASE="], time_limit=0.3)
    assert kind == "TIME-LIMIT" and "waits for what a thread that does not run meanwhile would write" in text


# ---------------------------------------------------------------- arrays that lie side by side

PARTS = """
__global__ void parts(const float* x, float* y, int reach) {
    extern __shared__ float memory[];
    float *a = memory, *b = memory + 64;
    int t = threadIdx.x;
    a[t] = x[t];
    if (!LATE) b[t] = 0;
    __syncthreads();
    float sum = 0;
    for (int k = 0; k < reach; k++) sum += a[t + k];
    if (LATE) b[63 - t] = sum;
    __syncthreads();
    y[t] = sum + b[t];
}
__global__ void walk(const float* x, float* y, int n) {
    float r[6], sum = 0, *p = r;
    for (int k = 0; k < n; k++) *p++ = x[threadIdx.x + k];
    for (int k = 0; k < 6; k++) sum += r[k];
    y[threadIdx.x] = sum;
}
__device__ __noinline__ float six(const float* x, int n) {
    float r[6], *p = r;
    while (n--) *p++ = *x++;
    return r[0] + r[5];
}
__global__ void helped(const float* x, float* y, int n) {
    y[threadIdx.x] = six(x + threadIdx.x, n);
    __syncthreads();
}
__global__ void walk_reading(const float* x, float* y, int n) {
    float r[6], sum = 0;
    for (int k = 0; k < 6; k++) r[k] = x[threadIdx.x + k];
    for (const float* p = r; p < r + n; p++) sum += *p;
    y[threadIdx.x] = sum;
}
"""


def test_one_part_of_dynamic_shared_memory_into_the_next():
    """It is one array, so nothing is out of bounds: what is found is what else is wrong with it."""
    for late, found in ((1, {"RACE", "UNINIT-SHARED"}), (0, set())):
        words = dict(shared=512, defines=[f"LATE={late}"], order="forward")
        assert kinds(PARTS, "parts", 1, 64, X, empty(64), 1, **words) == set()
        assert kinds(PARTS, "parts", 1, 64, X, empty(64), 4, **words) == found
        assert "OOB-SHARED" in kinds(PARTS, "parts", 1, 64, X, empty(64), 70, **words)


@pytest.mark.parametrize("kernel, line", [("walk", 20), ("helped", 25)])
def test_a_pointer_that_writes_on_behind_a_local_array(kernel, line):
    assert kinds(PARTS, kernel, 1, 8, X, empty(8), 6, defines=["LATE=0"]) == set()
    for n in (7, 8, 12):
        ((kind, text),) = reports(PARTS, kernel, 1, 8, X, empty(8), n, defines=["LATE=0"], order="forward")
        assert kind == "OOB-LOCAL" and "bytes behind the local arrays have been written" in text
        assert text.startswith(f"{line}: ")


def test_a_pointer_that_reads_on_is_not_seen():
    assert kinds(PARTS, "walk_reading", 1, 8, X, empty(8), 6, defines=["LATE=0"]) == set()
    assert kinds(PARTS, "walk_reading", 1, 8, X, empty(8), 7, defines=["LATE=0"], order="forward") == set()


# ---------------------------------------------------------------- shared variables and what they begin with

BEGINNINGS = """
struct Empty { float re, im; __device__ Empty() {} };
struct Filled { float re, im; __device__ Filled(float re = 1) : re(re), im(0) {} };
__global__ void empty_constructor(const float* x, float* y) {
    __shared__ Empty s[64];
    __shared__ struct Both { float a; int b; } both;
    s[threadIdx.x].re = x[threadIdx.x];
    if (threadIdx.x == 0) both.a = 2;
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x].re * both.a;
}
__global__ void filled(float* y) {
    __shared__ Filled s[64];
    y[threadIdx.x] = s[threadIdx.x].re;
}
__global__ void number(float* y) { __shared__ int n = 5; y[threadIdx.x] = n; }
__global__ void numbers(float* y) { __shared__ float s[2] = {1, 2}, t; y[threadIdx.x] = s[threadIdx.x % 2]; }
__global__ void braces(float* y) { __shared__ float s[64]{}; y[threadIdx.x] = s[threadIdx.x]; }
"""


def test_what_shared_variables_begin_with():
    """CUDA takes constructors that do nothing, and no values."""
    result = run(BEGINNINGS, "empty_constructor", 2, 64, X, empty(64))
    np.testing.assert_array_equal(result["y"], 2 * X[::-1])
    assert kinds(BEGINNINGS, "filled", 1, 64, empty(64)) != set()
    for kernel, line in (("number", 16), ("numbers", 17), ("braces", 18)):
        with pytest.raises(
            KernelError, match=f":{line}: __shared__ .*: not supported: an initial value of a __shared__ variable: let"
        ):
            run(BEGINNINGS, kernel, 1, 64, empty(64))


ROWS = """
__global__ void mirrored(const float A[][16], float (*B)[16], dim3 size) {
    for (unsigned c = threadIdx.x; c < size.x; c += blockDim.x)
        for (unsigned r = 0; r < size.y; r++) B[r][c] = A[r][size.x - 1 - c];
}
"""


def test_pointers_to_rows_and_sizes():
    x = X.reshape(4, 16)
    np.testing.assert_array_equal(run(ROWS, "mirrored", 1, 8, x, empty((4, 16)), (16, 4, 1))["B"], x[:, ::-1])
    ((kind, _),) = reports(ROWS, "mirrored", 1, 8, x, empty((4, 16)), (16, 5, 1), order="forward")
    assert kind == "OOB-GLOBAL"


HALVES = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
__global__ void doubled(const half2* x, __half2* y, half2 plus, const __nv_bfloat162* b) {
    y[threadIdx.x] = __hadd2(__hmul2(x[threadIdx.x], __float2half2_rn(__low2float(*b))), plus);
}
"""


def test_pairs_of_halves():
    x = np.arange(8, dtype=np.float16).reshape(4, 2)
    two = np.array([[0x4000, 0]], np.uint16)  # 2.0 as a bfloat16
    y = run(HALVES, "doubled", 1, 4, x, empty((4, 2), np.float16), (1, 0.5), two)["y"]
    assert y.dtype == np.float16 and (y == 2 * x + [1, 0.5]).all()


# ---------------------------------------------------------------- what reports say

WORDS = """
__global__ void halves(const float* x, float* y) {
    float4 v = *(const float4*)(x + 1);
    y[threadIdx.x] = v.x;
}
__global__ void shared_halves(float* y) {
    __shared__ float s[8];
    s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = ((const float2*)(s + 1))->x;
}
__device__ float table[4] = {1, 2, 3, 4};
__global__ void looked_up(float* y, int n) {
    const float* p = table;
    y[threadIdx.x] = p[threadIdx.x + n];
}
__global__ void left(const float* x, float* y) {
    __shared__ float s[8];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x - 1];
}
"""


def test_reports_say_which_array_and_which_index():
    ((kind, text),) = reports(WORDS, "halves", 1, 8, X, empty(8))
    assert kind == "MISALIGNED" and text.startswith("3: byte 4 of x (parameter 1, float32 (64,)), at address 0x")
    ((kind, text),) = reports(WORDS, "shared_halves", 1, 8, empty(8))
    assert kind == "MISALIGNED" and text.startswith("10: byte 4 of shared array 's', at address 0x")
    ((kind, text),) = reports(WORDS, "left", 1, 8, X, empty(8))
    assert (kind, text) == ("OOB-INDEX", "21: index 4294967295 (-1, without a sign) is outside of 'float [8]'")
    assert kinds(WORDS, "looked_up", 1, 4, empty(4), 0) == set()
    ((kind, text),) = reports(WORDS, "looked_up", 1, 4, empty(4), 1, order="forward")
    assert (kind, text) == ("OOB-GLOBAL", "15: a pointer leads out of an array of the file, by 'const float'")
