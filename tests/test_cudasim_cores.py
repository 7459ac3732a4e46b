"""The blocks of a launch on several cores: what is left and what is reported is what one core leaves and reports."""

import numpy as np
import pytest

from minigrad import ArgumentError, KernelError
from minigrad.cudasim import empty, run, side_by_side
from minigrad.cudasim.compiler import available
from minigrad.cudasim.settings import options

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

TEXT = r"""
__constant__ float taps[3];
__global__ void smooth(const float* x, float* y, int n) {
    __shared__ float tile[66];
    int t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t + 1] = i < n ? x[i] : 0;
    if (t == 0) tile[0] = i ? x[i - 1] : 0;
    if (t == 63) tile[65] = i + 1 < n ? x[i + 1] : 0;
    __syncthreads();
    if (i < n) y[i] = taps[0] * tile[t] + taps[1] * tile[t + 1] + taps[2] * tile[t + 2];
}
__global__ void add_one(float* y, int* done, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n) y[i] += 1;
    done[0] = 1;  // all store the same: no fault
}
// Only what is far apart meets: no two blocks of the same half.
__global__ void far(float* y, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n / 2) y[i] = y[i + n / 2];
    else if (i < n) y[i] = 0;
}
__global__ void last_fails(float* y, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
    y[i == n - 1 ? i + 1 : i] = 1;
}
__global__ void divides(int* y, int zero, int at) {
    int i = blockIdx.x * 64 + threadIdx.x;
    y[i] = blockIdx.x == at ? i / zero : i;
}
__global__ void last_hangs(float* y, int n) {
    volatile_free: y[blockIdx.x * 64 + threadIdx.x] = 1;
    if (blockIdx.x == gridDim.x - 1 && n) goto volatile_free;
}
__global__ void counts(int* count) { atomicAdd(count, 1); }
"""
BLOCKS = 200
N = 64 * BLOCKS - 5


@pytest.fixture
def split(monkeypatch):
    """The parts of every launch: None where it did not run in parts, False where it had to run again on one core."""
    seen = []
    run_parts, parts_of = side_by_side.run_parts, side_by_side.parts_of

    def spy_parts(*arguments):
        parts = parts_of(*arguments)
        seen.append(parts or None)
        return parts

    def spy_run(*arguments):
        found = run_parts(*arguments)
        if found is None:
            seen[-1] = False
        return found

    monkeypatch.setattr("minigrad.cudasim.module.parts_of", spy_parts)
    monkeypatch.setattr("minigrad.cudasim.module.run_parts", spy_run)
    monkeypatch.setattr(side_by_side, "LEAST_THREADS", {"fast": 64, "check": 64})
    monkeypatch.setattr(side_by_side, "WORTH", {"fast": 0, "check": 0})
    monkeypatch.setattr(side_by_side, "_seconds", {})
    monkeypatch.setattr(side_by_side, "_meet", set())
    return seen


def on(cores, *arguments, **keywords):
    """The result of a run on so many cores; or what it reports."""
    with options(cores=cores):
        try:
            return run(TEXT, *arguments, **keywords)
        except KernelError as error:
            return str(error)


@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("order", ["forward", "random"])
def test_results_do_not_depend_on_cores(split, mode, order):
    x, taps = np.random.default_rng(0).standard_normal(N).astype("f4"), np.float32([1, 2, 3])
    arguments = "smooth", BLOCKS, 64, x, empty(N), N
    left = [on(cores, *arguments, mode=mode, order=order, variables={"taps": taps}) for cores in (1, 2, 3)]
    padded = np.pad(x, 1)
    assert np.allclose(left[0]["y"], padded[:-2] + 2 * padded[1:-1] + 3 * padded[2:], atol=1e-5)
    for result in left[1:]:
        assert np.array_equal(result["y"], left[0]["y"]) and result.unwritten("y") == ""
    parts = None if (mode, order) == ("fast", "random") else [[range(100), range(100, 200)], 3]
    assert split[0] is None and (split[1:] == [None, None] if parts is None else split[1] == parts[0])
    assert parts is None or [len(split[2]), *map(len, split[2])] == [3, 66, 67, 67]


def test_where_parts_meet_the_launch_runs_again_from_its_beginning(split):
    y = np.arange(N, dtype="f4")
    result = on(2, "add_one", BLOCKS, 64, y, np.zeros(1, "i4"), N, order="forward")
    assert split == [False] and np.array_equal(result["y"], y + 1) and result["done"][0] == 1
    again = on(2, "add_one", BLOCKS, 64, y, np.zeros(1, "i4"), N, order="forward")
    assert split == [False, None] and np.array_equal(again["y"], result["y"])  # they would meet once more


@pytest.mark.parametrize(
    "kernel, arguments, kind",
    [
        ("far", (np.ones(N, "f4"), N), "RACE"),
        ("far", (empty(N), N), "UNINIT-GLOBAL"),
        ("last_fails", (empty(N + 5), N + 5), "OOB-GLOBAL"),
        ("divides", (empty(N + 5, "i4"), 0, 198), "DIVISION"),
        ("smooth", (empty(N), np.ones(N, "f4"), N), "UNINIT-GLOBAL"),
    ],
)
def test_reports_do_not_depend_on_cores(split, kernel, arguments, kind):
    texts = []
    for cores in (1, 2, 3):
        side_by_side._meet.clear()
        texts.append(on(cores, kernel, BLOCKS, 64, *arguments, order="forward"))
    assert f": {kind}" in texts[0] and texts[1] == texts[2] == texts[0]
    assert split == [None, False, False]


@pytest.mark.parametrize("at", [3, 198])
def test_a_fault_in_fast_mode_names_its_block(split, at):
    arguments = "divides", BLOCKS, 64, empty(N + 5, "i4"), 0, at
    texts = [on(cores, *arguments, mode="fast", order="forward") for cores in (1, 2)]
    assert f"block ({at},0,0) thread (0,0,0)" in texts[0] and texts[1] == texts[0] and len(split[1]) == 2


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_a_block_that_never_ends(split, mode):
    text = on(2, "last_hangs", BLOCKS, 64, empty(N + 5), 1, mode=mode, order="forward", time_limit=0.3)
    assert "TIME-LIMIT: block (199,0,0)" in text and len(split[0]) == 2


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_a_launch_that_was_short_is_not_split_again(split, monkeypatch, mode):
    arguments, taps = (np.ones(N, "f4"), empty(N), N), {"taps": np.zeros(3, "f4")}

    def launch(blocks):
        result = on(2, "smooth", blocks, 64, *arguments, mode=mode, order="forward", variables=taps)
        assert not result["y"][: blocks * 64].any()

    launch(BLOCKS)
    launch(BLOCKS)
    assert [len(parts) for parts in split] == [2, 2]
    (key,) = side_by_side._seconds  # written by parts; then by one core
    assert 0 < side_by_side._seconds[key] * N < 60
    monkeypatch.setitem(side_by_side.WORTH, mode, 1.0)
    side_by_side._seconds[key] = 1.5 / (64 * BLOCKS)
    launch(BLOCKS // 2)
    assert split[2] is None and 0 < side_by_side._seconds[key] < 1.5 / (64 * BLOCKS)
    side_by_side._seconds[key] = 1.5 / (64 * BLOCKS)
    launch(BLOCKS)
    assert len(split[3]) == 2


def test_what_runs_on_one_core(split):
    result = on(2, "counts", BLOCKS, 64, np.zeros(1, "i4"), order="forward")
    assert split == [None] and result["count"][0] == 64 * BLOCKS
    taps = {"taps": np.zeros(3, "f4")}
    on(2, "smooth", BLOCKS, 64, np.ones(N, "f4"), empty(N), N, order="forward", counters=True, variables=taps)
    on(2, "smooth", 1, 64, np.ones(64, "f4"), empty(64), 64, order="forward", variables=taps)
    assert split == [None] * 3
    for line in ("atomicAdd(p, 1);", "__threadfence();", "volatile int x;", 'printf("");', "x = clock64();", "new int"):
        assert side_by_side.talks(f"__global__ void k() {{ {line} }}"), line
    assert not side_by_side.talks('// atomicAdd\n__global__ void k(int gridDim) { asm volatile("nop"); }')
    with pytest.raises(ArgumentError, match="cores must be at least 1, or None for all, got 0"), options(cores=0):
        pass
