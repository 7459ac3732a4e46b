"""The pool behind `empty`: memory is used again, bounded, returned on request, never shared by two living arrays."""

import gc
import os
import threading

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, Tensor, nn
from minigrad.processor import memory
from minigrad.processor.memory import SMALLEST, empty, empty_like, rounded

MB = 1 << 20


@pytest.fixture(autouse=True)
def _fresh_pool():
    gc.collect()
    minigrad.empty_cache()
    yield
    minigrad.set_pool_limit(1 << 30)
    minigrad.empty_cache()


def address(array):
    return array.__array_interface__["data"][0]


def this_pool():
    pool = memory.own_pool()
    pool.settle()  # what was returned since the last array
    return pool


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / MB


def test_empty_is_an_ordinary_array():
    for shape, dtype in [
        ((3, 1000, 100), np.float32),
        ((50_000,), "f8"),
        ((), np.float32),
        ((0, 5), "f4"),
        ((2, 3), bool),
    ]:
        array = empty(shape, dtype)
        assert type(array) is np.ndarray and array.shape == shape and array.dtype == np.dtype(dtype)
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        array[...] = 1
        assert (array == 1).all()


def test_memory_comes_back_when_the_last_view_goes():
    a = empty((300, 400), np.float32)
    first = address(a)
    view = a[10:].T.reshape(-1)[::2][5:]
    view = a[3:7, ::2].transpose(1, 0)
    del a
    b = empty((300, 400), np.float32)
    assert address(b) != first  # the view still lives there
    del view
    c = empty((400, 300), np.float32)  # another shape, the same size
    assert address(c) == first
    assert this_pool().reused >= 1


def test_arrays_alive_at_the_same_time_do_not_overlap():
    rng = np.random.default_rng(0)
    living: dict[int, np.ndarray] = {}
    for i in range(400):
        if len(living) > 12:
            del living[int(rng.choice(list(living)))]
        size = int(rng.integers(SMALLEST // 4, SMALLEST * 2))
        living[i] = empty((size,), np.float32)
        living[i][:] = i
    for i, array in living.items():
        assert (array == i).all()


def test_sizes_that_nearly_agree_share_memory():
    a = empty((1_000_000,), np.float32)
    first = address(a)
    del a
    assert address(empty((990_000,), np.float32)) == first
    for size in [SMALLEST, SMALLEST + 1, 10 * MB - 1, 10 * MB, 150_994_944, 999_999_999]:
        assert size <= rounded(size) <= size * 1.125 + 4096 and rounded(rounded(size)) == rounded(size)


def test_memory_a_little_too_large_is_used_where_none_of_the_size_is_free():
    minigrad.empty_cache()
    arrays = {n: empty((n * MB,), np.uint8) for n in (8, 12, 14, 16)}
    places = {n: address(array) for n, array in arrays.items()}
    arrays.clear()
    one, two = empty((10 * MB,), np.uint8), empty((10 * MB,), np.uint8)
    assert [address(one), address(two)] == [places[12], places[14]]  # the next larger ones
    three = empty((10 * MB,), np.uint8)
    assert address(three) not in places.values()  # 16 MB would be too much
    assert this_pool().held == 24 * MB and this_pool().used >= 36 * MB
    del one, two
    assert address(empty((12 * MB,), np.uint8)) == places[12]  # given back as what they are
    assert this_pool().held == 50 * MB


def test_small_arrays_stay_out_of_the_pool():
    before = this_pool().mapped
    array = empty((SMALLEST // 4 - 1,), np.float32)
    assert this_pool().mapped == before and array.base is None


def test_limit_bounds_what_is_kept_and_the_oldest_sizes_go_first():
    minigrad.set_pool_limit(10 * MB)
    arrays = [empty((MB * n,), np.uint8) for n in (2, 3, 4, 5)]
    arrays.reverse()
    while arrays:
        arrays.pop()  # 2 MB is returned first, 5 MB last
    pool = this_pool()
    assert pool.held == 9 * MB and pool.free[4 * MB] and pool.free[5 * MB] and not pool.free.get(2 * MB)
    big = empty((20 * MB,), np.uint8)
    assert type(big.base) is not memory.Loan  # what exceeds the limit is not kept, and drives nothing else out
    del big
    assert this_pool().held == 9 * MB
    minigrad.set_pool_limit(0)
    assert pool.held == 0
    with pytest.raises(ArgumentError, match="limit must be an integer >= 0, got -1"):
        minigrad.set_pool_limit(-1)
    with pytest.raises(ArgumentError, match="got 1.5"):
        minigrad.set_pool_limit(1.5)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_empty_cache_returns_memory_to_the_system():
    array = empty((64 * MB,), np.uint8)
    array[:] = 1
    del array
    full = resident_mb()
    assert minigrad.empty_cache() == 64 * MB
    assert resident_mb() < full - 60
    assert minigrad.empty_cache() == 0


def test_a_train_step_asks_for_no_new_memory_after_the_first():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.LRN(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(16 * 23 * 23, 9)
    )
    x = Tensor(np.random.default_rng(0).standard_normal((12, 3, 50, 50)).astype("f"))

    def step():
        net.zero_grad()
        F.cross_entropy(minigrad.in_chunks(net, x, size=3), np.zeros(12, int)).backward()

    minigrad.set_num_threads(1)
    for _ in range(3):
        step()
    before = this_pool().mapped
    for _ in range(3):
        step()
    assert this_pool().mapped == before and this_pool().reused > 0


def test_each_thread_has_a_pool_and_takes_back_what_others_drop():
    made = []

    def work():
        made.append(empty((MB,), np.uint8))
        made.append(memory.own_pool())

    thread = threading.Thread(target=work, name="a thread of its own")
    thread.start()
    thread.join()
    array, pool = made
    assert pool is not this_pool() and pool.used == MB and "a thread of its own" in minigrad.memory_summary()
    mine = this_pool().held
    made.clear()
    del array
    pool.settle()
    assert pool.used == 0 and pool.held == MB and this_pool().held == mine


def test_rows_of_all_chunks_are_the_callers_whichever_thread_is_first():
    """Else both threads would keep memory for them in the long run, as now one and now the other comes first."""
    x = Tensor(np.ones((8, 40_000), np.float32))
    second = threading.Event()

    def function(rows):
        if threading.current_thread() is threading.main_thread():
            second.wait(10)  # the other thread's chunk ends first
            return rows * 2.0
        try:
            return rows * 2.0
        finally:
            threading.Timer(0.05, second.set).start()

    minigrad.set_num_threads(2)
    try:
        before = this_pool().used
        y = minigrad.in_chunks(function, x, size=4)
        assert this_pool().used - before == rounded(x.data.nbytes) and (y.numpy() == 2).all()
    finally:
        minigrad.set_num_threads(None)


def test_many_threads_dropping_each_others_arrays():
    box: list[np.ndarray] = []
    wrong = []

    def work(number):
        for _ in range(200):
            array = empty((SMALLEST,), np.uint8)
            array[:] = number
            box.append(array)
            if len(box) > 8:
                box.pop(0)
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_summary_says_what_is_in_use_and_what_is_free():
    array = empty((3 * MB,), np.uint8)
    other = empty((2 * MB,), np.uint8)
    del other
    row = next(line for line in minigrad.memory_summary().splitlines() if line.startswith("MainThread"))
    in_use, peak, free = (float(number) for number in row.split()[1:4])
    pool = this_pool()
    assert (in_use, free) == (round(pool.used / 1e6, 1), round(pool.held / 1e6, 1)) and free == 2.1 and peak >= 5.2
    assert minigrad.memory_summary().splitlines()[-1].startswith("all")
    del array


def test_empty_like_keeps_the_order_of_the_axes():
    x = np.zeros((4, 50, 40, 30), np.float32)
    for view in [x, x.transpose(0, 3, 1, 2), x[::2], x[:, ::-1], x.transpose(3, 2, 1, 0), x[:, :, :1]]:
        y = empty_like(view)
        assert y.shape == view.shape and y.dtype == view.dtype and y.strides == np.empty_like(view).strides
    assert empty_like(x, np.bool_).dtype == bool


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_write_into_the_parents_arrays():
    array = empty((MB,), np.uint8)
    array[:] = 7
    child = os.fork()
    if child == 0:
        array[:] = 9
        fresh = empty((MB,), np.uint8)
        fresh[:] = 9
        os._exit(0 if memory.own_pool().used == MB else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0 and (array == 7).all()
