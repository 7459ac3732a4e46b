"""minigrad.cudasim.run: anybody's kernel, with NumPy's arrays."""

import re
import subprocess
import sys

import numpy as np
import pytest

from minigrad import ArgumentError, DataError, DTypeError, KernelError
from minigrad.cudasim import Trace, assert_kernel, empty, run
from minigrad.cudasim.compiler import available
from minigrad.cudasim.settings import current
from minigrad.cudasim.trace import shared_types

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its device along"),
]

SAXPY = """
// y = a x + y
__global__ void saxpy(int n, float a, const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
"""
X = np.linspace(-1, 1, 100, dtype=np.float32)

ODDS = """
struct Pair { char kind; double weight; };
struct Holder { int n; const float* rows; };

extern "C" __global__ void numbers(bool b, signed char c, unsigned u, long long l, double d, float4 v, Pair p,
                                   const float4* w, const Pair* pairs, double* out) {
    out[0] = b; out[1] = c; out[2] = u; out[3] = l; out[4] = d;
    out[5] = v.x + 10 * v.w; out[6] = p.kind + p.weight; out[7] = w[1].z; out[8] = pairs[1].weight;
}
extern "C" __global__ void slots(int* next, int* y) { y[atomicAdd(next, 1)] = threadIdx.x; }
extern "C" __global__ void sum(const float* x, float* s) { atomicAdd(s, x[threadIdx.x]); }
extern "C" __global__ void speak(int* y) {
    if (threadIdx.x == 1) printf("one of %d\\n", (int)blockDim.x);
    if (y) y[threadIdx.x] = N;
}
extern "C" __global__ void shift(const float* a, float* b, int n) {
    if (threadIdx.x < n) b[threadIdx.x] = a[threadIdx.x] + 1;
}
extern "C" __global__ void forever(volatile int* y) { while (*y == 0) {} }
extern "C" __global__ void rows(float** rows, int n) { rows[0][0] = n; }
extern "C" __global__ void held(Holder h, float* y) { y[0] = h.rows[0]; }
extern "C" __global__ void tiny(const float* x, float* y) { y[0] = x[0] * 0.5f; }
"""


def odds(kernel, *arguments, block=1, **settings):
    return run(ODDS, kernel, 1, block, *arguments, defines={"N": 7}, **settings)


# ---------------------------------------------------------------- results


def test_results_come_back_and_arguments_stay():
    y = np.ones((4, 32), np.float32)
    result = run(SAXPY, "saxpy", (4,), (32, 1, 1), 100, 2.0, X, y)
    assert list(result) == ["y"] and (y == 1).all()
    assert result["y"].shape == (4, 32) and result["y"].dtype == np.float32
    np.testing.assert_allclose(result["y"].reshape(-1)[:100], 2 * X + 1, rtol=1e-6)
    assert (result["y"].reshape(-1)[100:] == 1).all()
    np.testing.assert_array_equal(result.written["y"].reshape(-1), np.arange(128) < 100)
    assert result.orders == ("forward", "reversed", "random") and result.notes == []
    text = str(result)
    assert text == repr(result)
    assert "saxpy: grid (4,1,1), block (32,1,1), check mode, threads forward, reversed, random: no report\n" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("y  "))
    assert row[:7] == ["y", "float32", "4x32", "-1", "-0.9596", "-0.91919", "-0.87879"]
    assert row[-6:] == ["-1", "3", "1", "100", "of", "128"]
    assert "y: 28 of 128 elements were not written, the first is y[3, 4]" in text
    with pytest.raises(KeyError, match="saxpy has no output 'x'; it has y"):
        result["x"]


def test_from_a_file(tmp_path):
    path = tmp_path / "my.cu"
    path.write_bytes(b"// caf\xe9" + SAXPY.encode())  # comments may be in any encoding
    with pytest.raises(KernelError) as caught:
        run(path, "saxpy", 1, 128, 101, 2.0, X, np.zeros(128, np.float32))
    (report,) = caught.value.reports
    assert (report.kind, report.file, report.line, report.thread) == ("OOB-GLOBAL", str(path), 5, (100, 0, 0))
    assert f"\n{path}:5: OOB-GLOBAL: block (0,0,0) thread (100,0,0): reads 4 bytes at byte 400 of x" in str(
        caught.value
    )
    assert "x (parameter 3, float32 (100,)), which has 400" in str(caught.value)
    assert "(threads in the order 'forward')" in str(caught.value)
    (tmp_path / "empty.cu").write_text("int main() {}\n")
    for file, error in (("no.cu", "cannot be read"), ("", "cannot be read"), ("empty.cu", "kernel")):
        with pytest.raises((DataError, KernelError), match=error):
            run(tmp_path / file, "saxpy", 1, 1)
    with pytest.raises(DataError, match=r"kernel\.cuh?: cannot be read: .*No such file"):
        run("kernel.cu", "saxpy", 1, 1)


def test_memory_that_nobody_has_written():
    with pytest.raises(KernelError, match="UNINIT-GLOBAL: .*reads byte 0 of y"):
        run(SAXPY, "saxpy", 1, 128, 100, 2.0, X, empty(100))
    result = odds("speak", empty(5, "int32"), block=4)
    assert list(result["y"]) == [7, 7, 7, 7, -1]
    assert result.unwritten("y") == "y: 1 of 5 elements were not written, the first is y[4]"
    assert run(SAXPY, "saxpy", 1, 1, 0, 2.0, X, empty(3)).unwritten("y") == "y: the kernel has written nothing"
    with pytest.raises(ArgumentError, match="must not be negative"):
        empty((2, -1))


def test_one_order_and_fast_mode():
    result = run(SAXPY, "saxpy", 1, 128, 100, 2.0, X, X.copy(), mode="fast", order="reversed")
    np.testing.assert_allclose(result["y"], 3 * X, rtol=1e-6)
    assert result.orders == ("reversed",) and result.written["y"] is None and result.unwritten("y") == ""
    assert "fast mode, threads reversed: no fault" in str(result) and "not known" in str(result)
    with pytest.raises(KernelError, match=r"OOB-GLOBAL: wrote behind y \(parameter 4") as caught:
        run(SAXPY, "saxpy", 1, 128, 100, 2.0, X, np.zeros(99, np.float32), mode="fast")
    assert caught.value.reports[0].kind == "OOB-GLOBAL"


def test_results_that_depend_on_the_order():
    zeros, next_slot = np.zeros(4, np.int32), np.zeros(1, np.int32)
    with pytest.raises(KernelError, match="ORDER: the result depends on the order of the threads, y") as caught:
        odds("slots", next_slot, zeros, block=4)
    assert r"y[0]: forward 0, reversed 3 (4 of 4 elements differ)" in str(caught.value)
    assert [report.kind for report in caught.value.reports] == ["ORDER"]
    assert list(odds("slots", next_slot, zeros, block=4, order="reversed")["y"]) == [3, 2, 1, 0]
    x = np.float32([1e8, 1, 1, 1, -1e8, 0.25, 3, 3])
    result = odds("sum", x[[1, 2, 5, 6]] / np.float32(3), np.zeros(1, np.float32), block=4)
    assert result["s"][0] == pytest.approx(5.25 / 3)
    x = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    result = odds("sum", x, np.zeros(1, np.float32), block=256)
    assert result.notes == ["s: another order of the threads gives other last bits (atomics on floats do)"]
    assert result.notes[0] in str(result)
    with pytest.raises(KernelError, match="ORDER"):  # sums of which nothing is left but rounding
        odds("sum", np.float32([1e8, 1, 1, 1, -1e8, 0.25, 3, 3]), np.zeros(1, np.float32), block=8)


def test_the_random_order_comes_from_the_seed():
    arguments = np.zeros(1, np.int32), np.zeros(32, np.int32)
    drawn = [tuple(odds("slots", *arguments, block=32, order="random", seed=seed)["y"]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_printf_is_shown_once(capsys):
    result = odds("speak", None, block=3)
    assert capsys.readouterr().out == result.printed == "one of 3\n"
    assert dict(result) == {}


def test_counters_and_settings():
    before = current()
    result = run(SAXPY, "saxpy", 1, 128, 100, 2.0, X, X.copy(), counters=True)
    assert current() == before
    assert (result.counters.bytes_read, result.counters.bytes_written) == (800, 400)  # of one order
    assert "global memory: 800 bytes read, 400 written" in str(result)
    for settings, message in [
        ({"mode": "slow"}, "mode must be one of 'fast', 'check', got 'slow'"),
        ({"order": "any"}, "order must be 'all' or one of 'forward', 'reversed', 'random', got 'any'"),
        ({"mode": "fast", "counters": True}, "counters and trace need mode='check'"),
        ({"time_limit": 0}, "time_limit must be a positive number"),
        ({"defines": "N=1"}, "defines must be a dict or a sequence"),
    ]:
        with pytest.raises(ArgumentError, match=re.escape(message)):
            run(SAXPY, "saxpy", 1, 128, 100, 2.0, X, X.copy(), **settings)
    for grid, block in [(1.5, 1), (1, (1, 2, 3, 4)), ((), 1), ("1", 1), (True, 1)]:
        with pytest.raises(ArgumentError, match="(grid|block) must be one to three integers"):
            run(SAXPY, "saxpy", grid, block, 100, 2.0, X, X.copy())
    with pytest.raises(KernelError, match="LAUNCH: a block has three sizes") as caught:
        run(SAXPY, "saxpy", 1, 2048, 100, 2.0, X, X.copy())
    assert caught.value.reports
    with pytest.raises(ArgumentError, match="wants a file or the text of one, got int"):
        run(5, "saxpy", 1, 1)


def test_a_kernel_that_never_ends():
    with pytest.raises(KernelError, match="TIME-LIMIT: .*0.2 s") as caught:
        odds("forever", np.zeros(1, np.int32), time_limit=0.2)
    assert caught.value.reports[0].line == 19


def test_what_does_not_compile_has_no_report():
    with pytest.raises(KernelError, match=r"nonsense") as caught:
        run(SAXPY.replace("a * x", "nonsense * x"), "saxpy", 1, 1, 1, 1.0, X, X)
    assert caught.value.reports == []
    with pytest.raises(KernelError, match="there is no kernel 'sexpy'; there are saxpy"):
        run(SAXPY, "sexpy", 1, 1)


def test_denormal_numbers_stay_as_nvcc_leaves_them():
    x = np.float32([1e-40])
    assert odds("tiny", x, empty(1))["y"] == x / 2 != 0


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((100, 2.0, X), ArgumentError, "3 arguments for 4 parameters: int n, float a, const float* x, float* y"),
        (
            (100, 2.0, X.astype(np.float64), X),
            DTypeError,
            "parameter 3, `const float* x`, wants float32, got float64: x.astype('float32')",
        ),
        ((100, 2.0, X.astype(">f4"), X), DTypeError, "parameter 3, `const float* x`, wants float32, got >f4"),
        ((100, 2.0, X > 0, X), DTypeError, "wants float32, got bool: x.astype('float32')"),
        ((100, 2.0, X.astype(object), X), DTypeError, "wants float32, got object"),
        ((100, 2.0, 5, X), DTypeError, "parameter 3, `const float* x`, wants an array of float32, got the number 5"),
        ((100, 2.0, list(X), X), DTypeError, "wants an array of float32, got list: pass a NumPy array, or None"),
        ((100.0, 2.0, X, X), DTypeError, "parameter 1, `int n`, wants an integer (int32), got 100.0"),
        ((2**31, 2.0, X, X), ArgumentError, "parameter 1, `int n`, holds int32, from -2147483648 to 2147483647"),
        (
            (100, X, X, X),
            DTypeError,
            "parameter 2, `float a`, wants a number (float32), got an array of float32 (100,)",
        ),
        ((100, "2", X, X), DTypeError, "parameter 2, `float a`, wants a number (float32), got '2'"),
        ((100, 1e39, X, X), ArgumentError, "parameter 2, `float a`, holds float32: 1e+39 does not fit"),
        ((100, 10**400, X, X), ArgumentError, "holds float32"),
        ((100, 2j, X, X), DTypeError, "wants a number (float32), got 2j"),
        ((100, None, X, X), DTypeError, "wants a number (float32), got None"),
        ((90, 2.0, X[:90], X[10:]), ArgumentError, "parameter 4, `float* y`, shares some of its memory with that of x"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        run(SAXPY, "saxpy", 1, 128, *arguments)


def test_numbers_that_fit():
    for n, a in [(np.int64(3), np.float64(2)), (np.uint8(3), 2), (np.array(3), np.float32(2)), (3, np.array(2.0))]:
        assert list(run(SAXPY, "saxpy", 1, 4, n, a, X[:4], np.zeros(4, np.float32), order="forward")["y"][:3]) == list(
            2 * X[:3]
        )
    assert np.isposinf(run(SAXPY, "saxpy", 1, 1, 1, np.inf, -X[:1], X[:1])["y"]).all()


def test_arrays_of_any_layout():
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    for x in (grid.T, grid[::-1, ::2], np.asfortranarray(grid), grid[0, 0], np.zeros((0, 3), np.float32)):
        x = np.asarray(x)
        n = x.size
        result = odds("shift", x, np.zeros(x.shape, np.float32), n, block=16)
        np.testing.assert_array_equal(result["b"], x + 1)
        assert result["b"].shape == x.shape and result.unwritten("b") == ""
    read_only = X.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(odds("shift", read_only, read_only, 100, block=128)["b"], X + 1)


def test_an_array_that_is_passed_twice_is_one_array():
    y = np.zeros(3, np.float32)
    result = odds("shift", y, y, 3, block=3)
    assert list(result["b"]) == [1, 1, 1] and (y == 0).all()
    result = run(ODDS, "sum", 1, 1, np.ones(1, np.float32), np.ones(1, np.float32), defines=["N=1"])
    assert result["s"] == 2
    one = np.ones(1, np.float32)
    assert run(ODDS, "sum", 2, 1, one, one, order="forward", mode="fast", defines=["N=1"])["s"] == 4  # 1 + 1, + 2
    np.testing.assert_array_equal(odds("shift", X[:50], X[50:], 50, block=64)["b"], X[:50] + 1)  # side by side


def test_numbers_structs_and_vectors():
    pair = np.dtype([("kind", "i1"), ("weight", "f8")], align=True)
    one = np.array((3, 0.5), pair)
    w = np.arange(8, dtype=np.float32)
    pairs = np.array([(1, 2.5), (3, 4.5)], pair)
    expected = [1, -5, 4e9, -(2**40), 0.1, 41, 3.5, 6, 4.5]
    for v, p, ws, ps in [
        ((1, 2, 3, 4), one[()], w, pairs),
        (np.float32([1, 2, 3, 4]), one.tobytes(), w.reshape(2, 4), pairs.view(np.uint8)),
        (np.float32([1, 2, 3, 4]).tobytes(), one, w, pairs),
    ]:
        out = odds("numbers", True, -5, 4 * 10**9, -(2**40), 0.1, v, p, ws, ps, empty(9, "float64"))["out"]
        np.testing.assert_array_equal(out, expected)
    good = [True, 1, 1, 1, 1.0, (1, 2, 3, 4), one, w, pairs, empty(9, "float64")]
    for i, bad, message in [
        (0, 2, "parameter 1, `bool b`, wants True or False, got 2"),
        (1, 128, "holds int8, from -128 to 127: 128 does not fit"),
        (2, -1, "holds uint32, from 0 to 4294967295"),
        (5, (1, 2, 3), "parameter 6, `float4 v`, wants 4 numbers, such as (0, 1, 2, 3), got (1, 2, 3)"),
        (5, 1.0, "wants 4 numbers"),
        (6, 5, "parameter 7, `Pair p`, is a struct of 16 bytes: pass its bytes, or a scalar of a structured dtype"),
        (6, b"123", "parameter 7, `Pair p`, is a struct of 16 bytes, got 3"),
        (7, w[:3], "has elements of 16 bytes: an array of 12 bytes holds no whole number of them"),
        (7, w.astype("f8"), "wants float32 (4 for each element), got float64"),
        (8, w, "wants records of 16 bytes (a structured dtype, align=True), or uint8, got float32"),
        (9, w, "parameter 10, `double* out`, wants float64, got float32: out.astype('float64')"),
    ]:
        with pytest.raises((ArgumentError, DTypeError), match=re.escape(message)):
            odds("numbers", *good[:i], bad, *good[i + 1 :])


def test_null_and_pointers_that_cannot_be_passed():
    with pytest.raises(KernelError, match="a null pointer"):
        run(SAXPY, "saxpy", 1, 1, 1, 1.0, None, X)
    with pytest.raises(ArgumentError, match=r"parameter 1, `float\*\* rows`, is a pointer to pointers"):
        odds("rows", X, 1)
    with pytest.raises(
        ArgumentError, match=r"parameter 1, `Holder h`, is a struct with a pointer in it \(`const float"
    ):
        odds("held", bytes(16), X)


# ---------------------------------------------------------------- trace, and tests of courses

SUMS = """
__global__ void sums(const float* x, float* y, int* count) {
    __shared__ float part[4];
    float mine = 0;
    for (int i = 0; i < 3; i++) mine += x[3 * threadIdx.x + i];
    part[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x == 1) y[blockIdx.x] = part[0] + part[1] + part[2] + part[3];
    __syncthreads();
    atomicAdd(count, 2);
}
"""


def traced(thread, block=(0, 0, 0), **settings):
    trace = Trace(thread, block, **settings)
    x, count = np.arange(12, dtype=np.float32), np.full(1, 5, np.int32)
    run(SUMS, "sums", 2, 4, x, np.zeros(2, np.float32), count, trace=trace)
    return trace


def test_a_trace_shows_what_one_thread_does():
    trace = traced((1, 0, 0), (1, 0, 0))
    steps = [(s.line, s.operation, s.where, s.value) for s in trace.steps]
    assert steps == [
        (5, "load", "x[3]", "3.0"),
        (5, "load", "x[4]", "4.0"),
        (5, "load", "x[5]", "5.0"),
        (6, "store", "shared part[1]", "12.0"),
        (7, "barrier", "", ""),
        (8, "load", "shared part[0]", "3.0"),
        (8, "load", "shared part[1]", "12.0"),
        (8, "load", "shared part[2]", "21.0"),
        (8, "load", "shared part[3]", "30.0"),
        (8, "store", "y[1]", "66.0"),
        (9, "barrier", "", ""),
        (10, "atomic", "count[0]", "15 -> 17"),  # after block 0, and thread 0 of this one
    ]
    text = str(trace)
    assert text.startswith("thread (1,0,0) of block (1,0,0):\nline") and "kernel.cu:8   store" in text and not trace.cut
    other = traced((2, 0, 0))
    assert [s.where for s in other.steps if s.operation == "load" and s.line == 5] == ["x[6]", "x[7]", "x[8]"]
    assert not any(s.line == 8 for s in other.steps)


def test_a_trace_is_cut_and_says_so():
    whole = traced((1, 0, 0))
    cut = traced((1, 0, 0), most=4)
    assert cut.steps == whole.steps[:4] and cut.cut == len(whole.steps) - 4
    assert str(cut).endswith(f"\n... and {cut.cut} more, which are left out")
    with pytest.raises(ArgumentError, match=r"there is no thread \(4, 0, 0\): the sizes are \(4, 1, 1\)"):
        traced((4, 0, 0))
    with pytest.raises(ArgumentError, match=r"there is no block \(0, 1, 0\)"):
        traced((0, 0, 0), (0, 1, 0))
    with pytest.raises(ArgumentError, match="a trace keeps 1 to 1000000 steps, got 0"):
        Trace((0, 0, 0), most=0)


def test_a_trace_ends_at_the_fault():
    trace = Trace((3, 0, 0))
    with pytest.raises(KernelError, match="OOB-GLOBAL"):
        run(SAXPY, "saxpy", 1, 4, 4, 1.0, X[:4], np.ones(3, np.float32), trace=trace)
    assert [(s.operation, s.where, s.value) for s in trace.steps] == [
        ("load", "x[3]", str(X[3])),
        ("load", "y[3] (outside)", ""),
    ]


def test_the_types_of_shared_arrays():
    found = shared_types(
        "__shared__ float a[4], b[2][3]; __shared__ unsigned char c; extern __shared__ double big[];\n"
        "__shared__ Mine d[3]; __shared__ __align__(16) int e[N + 1]; __shared__ volatile unsigned long long f[2];"
    )
    assert {name: str(dtype) for name, dtype in found.items()} == {
        **{"a": "float32", "b": "float32", "c": "uint8", "dynamic": "float64", "e": "int32", "f": "uint64"}
    }


def test_assert_kernel():
    y = np.ones(100, np.float32)
    result = assert_kernel(SAXPY, "saxpy", 1, 128, 100, 2.0, X, y, expect={"y": 2.0 * X + 1})
    assert result.mode == "check" and result.orders == ("forward", "reversed", "random")
    wrong = (2 * X + 1).reshape(10, 10)
    wrong[3, 4] += 1e-3
    with pytest.raises(AssertionError) as caught:
        assert_kernel(SAXPY, "saxpy", 1, 128, 100, 2.0, X, y.reshape(10, 10), expect={"y": wrong})
    assert re.search(
        r"^y\[3, 4\]: 0\.373737\d, expected 0\.374737\d+ \(1 of 100 elements differ", str(caught.value), re.M
    )
    assert_kernel(SAXPY, "saxpy", 1, 128, 100, 2.0, X, y, expect={"y": wrong}, tolerance=1e-2)
    with pytest.raises(KernelError, match="OOB-GLOBAL"):
        assert_kernel(SAXPY, "saxpy", 1, 128, 101, 2.0, X, y, expect={"y": y})
    with pytest.raises(ArgumentError, match=r"y: has shape \(100,\), what is expected has \(3,\)"):
        assert_kernel(SAXPY, "saxpy", 1, 128, 100, 2.0, X, y, expect={"y": np.ones(3)})
    with pytest.raises(KeyError, match="has no output 'z'"):
        assert_kernel(SAXPY, "saxpy", 1, 128, 100, 2.0, X, y, expect={"z": y})


def test_what_runs_kernels_is_imported_late():
    code = "import sys, minigrad; print([m for m in sys.modules if m.endswith(('running', 'passing', 'cuda_file'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        import minigrad

        _ = minigrad.cudasim.nothing


def test_variables_begin_anew_in_every_launch():
    text = """
__constant__ float taps[3];
__device__ int hits = 5;
__global__ void weigh(const float* x, float* y, int* seen) {
    y[threadIdx.x] = x[threadIdx.x] * taps[threadIdx.x];
    if (atomicAdd(&hits, 1) == 7) seen[0] = 7;
}
"""
    taps, x = np.float32([1, 2, 4]), np.float32([3, 3, 3])
    trace = Trace((2, 0, 0))
    for _ in range(2):
        result = run(text, "weigh", 1, 3, x, empty(3), np.zeros(1, np.int32), variables={"taps": taps}, trace=trace)
        assert list(result["y"]) == [3, 6, 12] and result["seen"] == 7
    assert list(run(text, "weigh", 1, 3, x, empty(3), np.zeros(1, np.int32))["y"]) == [0, 0, 0]
    assert any(step.where.startswith("hits") and step.operation == "atomic" for step in trace.steps)
    with pytest.raises(ArgumentError, match=r"variable taps has 12 bytes, got float64 \(3,\)"):
        run(text, "weigh", 1, 3, x, empty(3), np.zeros(1, np.int32), variables={"taps": taps.astype("f8")})
    with pytest.raises(KernelError, match="no __constant__ or __device__ variable 'tips'"):
        run(text, "weigh", 1, 3, x, empty(3), np.zeros(1, np.int32), variables={"tips": taps})


def test_records_with_arrays_in_them_and_what_copying_them_costs():
    """A struct of 64 bytes is four accesses of 16 bytes for each lane."""
    text = "struct S { float v[16]; };\n__global__ void copy(const S* x, S* y) { y[threadIdx.x] = x[threadIdx.x]; }\n"
    x = np.zeros(32, [("v", "f4", 16)])
    x["v"] = np.arange(512).reshape(32, 16)
    result = run(text, "copy", 1, 32, x, empty(32, x.dtype), counters=True)
    assert np.array_equal(result["y"]["v"], x["v"])
    assert [(row.size, row.requests, row.units) for row in result.counters.rows] == [(16, 4, 128)] * 2


def test_a_local_that_nobody_sets_in_a_kernel_with_constants():
    text = """
    __constant__ float scale[1];
    __global__ void sums(const float* x, float* y) {
        float s;
        for (int i = 0; i < 4; i++) s += scale[0] * x[4 * threadIdx.x + i];
        y[threadIdx.x] = s;
    }
    """
    arguments, variables = (np.ones(32, "f4"), empty(8)), {"scale": np.float32([2])}
    with pytest.raises(KernelError, match="UNINIT-LOCAL.*depends on a local variable that nobody has set: 's'"):
        run(text, "sums", 1, 8, *arguments, variables=variables)
    mended = text.replace("float s;", "float s = 0;")
    assert (run(mended, "sums", 1, 8, *arguments, variables=variables)["y"] == 8).all()
