"""kernels/ladder/: the first step of every ladder is the formula, and every step computes what the first one does."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import conv2d_reference, linear_reference, lrn_reference, max_pool2d_reference

import minigrad
from minigrad import Tensor
from minigrad.cudasim.settings import ORDERS, options
from minigrad.errors import ArgumentError, DeviceError, KernelError
from minigrad.gpu import sources as kernel
from minigrad.gpu.cases.case import as_tf32
from minigrad.gpu.cases.ladder import LADDERS, TILES, is_tf32

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from kernel_ladder import CLIMBS, same_bits, traffic  # noqa: E402

SCATTERS = {"conv2d_backward_x_1_scatter", "max_pool2d_backward_1_scatter"}

# ---------------------------------------------------------------- the formulas, as loops


def gemm_loops(a, b):
    return linear_reference(a, b.T)


def conv2d_loops(x, w, stride, padding):
    return conv2d_reference(x, w, None, stride, padding)


def pairs(dy, kernel, size, stride, padding):
    """(i, j, u, v, row, col) for all numbers of an image of dy and all taps that lead to a pixel."""
    for i, j, u, v in np.ndindex(*dy.shape[2:], *kernel):
        row, col = stride * i + u - padding, stride * j + v - padding
        if 0 <= row < size[0] and 0 <= col < size[1]:
            yield i, j, u, v, row, col


def conv2d_backward_x_loops(dy, w, stride, padding, size):
    dx = np.zeros((len(dy), w.shape[1], *size))
    for i, j, u, v, row, col in pairs(dy, w.shape[2:], size, stride, padding):
        for n, o, c in np.ndindex(*dy.shape[:2], w.shape[1]):
            dx[n, c, row, col] += float(w[o, c, u, v]) * float(dy[n, o, i, j])
    return dx


def conv2d_backward_w_loops(dy, x, kernel, stride, padding):
    dw = np.zeros((dy.shape[1], x.shape[1], *kernel))
    for i, j, u, v, row, col in pairs(dy, kernel, x.shape[2:], stride, padding):
        for n, o, c in np.ndindex(*dy.shape[:2], x.shape[1]):
            dw[o, c, u, v] += float(dy[n, o, i, j]) * float(x[n, c, row, col])
    return dw


def lrn_loops(x, n, k, alpha, beta):
    return lrn_reference(x, n, k, alpha, beta)


def lrn_backward_loops(x, dy, n, k, alpha, beta):
    """dx_i = sum over j of dy_j * (dy_j / dx_i): s_j^-beta where j is i, and what x_i does to s_j for all near it."""
    dx, channels = np.zeros(x.shape), x.shape[1]
    for image, i, h, l in np.ndindex(x.shape):
        for j in range(channels):
            if abs(i - j) > n // 2:
                continue
            window = range(max(0, j - n // 2), min(channels, j + n // 2 + 1))
            s = k + alpha * sum(float(x[image, other, h, l]) ** 2 for other in window)
            slope = -beta * s ** (-beta - 1) * 2 * alpha * float(x[image, i, h, l]) * float(x[image, j, h, l])
            dx[image, i, h, l] += float(dy[image, j, h, l]) * (slope + (s**-beta if i == j else 0.0))
    return dx


def max_pool2d_backward_loops(x, dy, kernel, stride, padding):
    both = ((padding, padding),) * 2
    return max_pool2d_reference(x, kernel, (stride, stride), both, dy=dy)[1]


LOOPS = {name: globals()[f"{name}_loops"] for name in LADDERS}

# ---------------------------------------------------------------- shapes

# (shapes, settings) by ladder.  In each one case at least has more than one tile of every step, with a remainder along
# rows, columns and depth; and stride, padding and kernels beyond the plain ones.
RESPONSE = {"n": 5, "k": 2.0, "alpha": 0.1, "beta": 0.75}
CASES = {
    "gemm": {
        "one number": ({"a": (1, 1), "b": (1, 1)}, {}),
        "a row": ({"a": (1, 21), "b": (21, 19)}, {}),
        "a column": ({"a": (17, 5), "b": (5, 1)}, {}),
        "whole tiles": ({"a": (64, 32), "b": (32, 64)}, {}),
        "tiles": ({"a": (67, 37), "b": (37, 83)}, {}),
    },
    "conv2d": {
        "one pixel": ({"x": (1, 1, 1, 1), "w": (1, 1, 1, 1)}, {"stride": 1, "padding": 0}),
        "plain": ({"x": (2, 3, 6, 5), "w": (4, 3, 3, 2)}, {"stride": 1, "padding": 0}),
        "stride": ({"x": (2, 2, 9, 8), "w": (3, 2, 3, 2)}, {"stride": 3, "padding": 0}),
        "padding": ({"x": (1, 2, 5, 4), "w": (3, 2, 3, 3)}, {"stride": 1, "padding": 2}),
        "padding beyond the kernel": ({"x": (1, 1, 3, 2), "w": (2, 1, 2, 2)}, {"stride": 2, "padding": 3}),
        "tiles": ({"x": (3, 5, 8, 9), "w": (70, 5, 3, 3)}, {"stride": 2, "padding": 2}),
    },
    "conv2d_backward_x": {
        "one pixel": ({"dy": (1, 1, 1, 1), "w": (1, 1, 1, 1)}, {"stride": 1, "padding": 0, "size": (1, 1)}),
        "plain": ({"dy": (2, 4, 4, 4), "w": (4, 3, 3, 2)}, {"stride": 1, "padding": 0, "size": (6, 5)}),
        "a stride that leaves pixels out": (
            {"dy": (2, 3, 3, 3), "w": (3, 2, 2, 1)},
            {"stride": 3, "padding": 0, "size": (9, 8)},
        ),
        "padding beyond the kernel": (
            {"dy": (1, 2, 4, 4), "w": (2, 1, 2, 2)},
            {"stride": 2, "padding": 3, "size": (3, 2)},
        ),
        "tiles": ({"dy": (2, 7, 5, 4), "w": (7, 18, 3, 2)}, {"stride": 2, "padding": 1, "size": (10, 7)}),
    },
    "conv2d_backward_w": {
        "one pixel": ({"dy": (1, 1, 1, 1), "x": (1, 1, 1, 1)}, {"kernel": (1, 1), "stride": 1, "padding": 0}),
        "plain": ({"dy": (2, 4, 4, 4), "x": (2, 3, 6, 5)}, {"kernel": (3, 2), "stride": 1, "padding": 0}),
        "a stride that leaves pixels out": (
            {"dy": (2, 3, 3, 3), "x": (2, 2, 10, 10)},
            {"kernel": (2, 2), "stride": 3, "padding": 0},
        ),
        "padding beyond the kernel": (
            {"dy": (1, 2, 4, 4), "x": (1, 1, 3, 2)},
            {"kernel": (2, 2), "stride": 2, "padding": 3},
        ),
        "tiles": ({"dy": (3, 18, 6, 5), "x": (3, 3, 11, 8)}, {"kernel": (3, 2), "stride": 2, "padding": 1}),
    },
    "lrn": {
        "one number": ({"x": (1, 1, 1, 1)}, RESPONSE),
        "fewer channels than a window": ({"x": (2, 2, 3, 4)}, {**RESPONSE, "n": 9, "beta": 0.5}),
        "no neighbours": ({"x": (2, 3, 2, 5)}, {**RESPONSE, "n": 1, "k": 1.0}),
        "blocks": ({"x": (2, 37, 3, 7)}, RESPONSE),
        "blocks, the widest window": ({"x": (2, 50, 2, 9)}, {**RESPONSE, "n": 17, "beta": 1.2}),
    },
    "max_pool2d_backward": {
        "one pixel": ({"x": (1, 1, 1, 1), "dy": (1, 1, 1, 1)}, {"kernel": (1, 1), "stride": 1, "padding": 0}),
        "overlapping": ({"x": (2, 3, 9, 8), "dy": (2, 3, 4, 3)}, {"kernel": (3, 3), "stride": 2, "padding": 0}),
        "every pixel": ({"x": (1, 2, 7, 6), "dy": (1, 2, 5, 5)}, {"kernel": (3, 2), "stride": 1, "padding": 0}),
        "pixels left out": ({"x": (2, 2, 9, 10), "dy": (2, 2, 3, 3)}, {"kernel": (1, 2), "stride": 4, "padding": 0}),
        "blocks": ({"x": (3, 5, 11, 10), "dy": (3, 5, 6, 5)}, {"kernel": (3, 3), "stride": 2, "padding": 1}),
    },
}
CASES["lrn_backward"] = {
    case: (shapes | {"dy": shapes["x"]}, settings) for case, (shapes, settings) in CASES["lrn"].items()
}

every_case = pytest.mark.parametrize("name, case", [(name, case) for name in LADDERS for case in CASES[name]])
every_step = pytest.mark.parametrize(
    "name, step", [pytest.param(name, step, id=step) for name in LADDERS for step in LADDERS[name].steps]
)


@pytest.fixture(scope="module")
def card():
    """The emulator."""
    try:
        minigrad.device("cudasim:0").runtime  # noqa: B018
    except DeviceError as error:
        pytest.skip(str(error))
    return "cudasim:0"


def arrays(name, case, dtype):
    random = np.random.default_rng(0)
    return {key: random.standard_normal(shape).astype(dtype) for key, shape in CASES[name][case][0].items()}


def computed(name, step, inputs, settings, device):
    """The result of a step, or of the op where step is the ladder's top, as a NumPy array."""
    tensors = {key: Tensor(array, device=device) for key, array in inputs.items()}
    return LADDERS[name].prepare(step, **tensors, **settings)().numpy()


# ---------------------------------------------------------------- results


@every_case
def test_the_first_step_and_the_op_are_the_formula(name, case, card):
    ladder, inputs, settings = LADDERS[name], arrays(name, case, "float64"), CASES[name][case][1]
    expected = LOOPS[name](**inputs, **settings)
    for step, device in ((ladder.steps[0], card), (ladder.top, card), (ladder.top, "cpu:0")):
        np.testing.assert_allclose(computed(name, step, inputs, settings, device), expected, atol=1e-12, err_msg=step)


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_step_is_the_first(name, case, dtype, card):
    inputs, settings = arrays(name, case, dtype), CASES[name][case][1]
    first, *others = LADDERS[name].steps
    others = [step for step in others if not is_tf32(step)]
    expected = computed(name, first, inputs, settings, card)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype] * np.abs(expected).max()
    for step in others:
        result = computed(name, step, inputs, settings, card)
        assert result.shape == expected.shape and result.dtype == expected.dtype == dtype
        np.testing.assert_allclose(result, expected, atol=tolerance, err_msg=step)


@pytest.mark.parametrize("name, case", [(name, case) for name in ("gemm", "conv2d") for case in CASES[name]])
def test_matrix_units_do_what_the_first_step_does_with_rounded_factors(name, case, card):
    inputs, settings, step = arrays(name, case, "float32"), CASES[name][case][1], LADDERS[name].steps[-1]
    assert is_tf32(step)
    rounded = {key: as_tf32(array) for key, array in inputs.items()}
    result, exact = computed(name, step, inputs, settings, card), computed(name, step, inputs, settings, "cpu:0")
    expected = LOOPS[name](**rounded, **settings)
    assert result.shape == expected.shape and result.dtype == np.float32
    for close in (result, exact, computed(name, LADDERS[name].steps[0], rounded, settings, card)):
        np.testing.assert_allclose(close, expected, atol=2e-6 * np.abs(expected).max())
    if case == "tiles":  # it is the factors that are rounded: the exact product is further away
        assert np.abs(result - LOOPS[name](**inputs, **settings)).max() > 1e-4 * np.abs(expected).max()
    for device in (card, "cpu:0"):
        with pytest.raises(ArgumentError, match=f"{step}: the factors must be float32, got float64"):
            computed(name, step, arrays(name, case, "float64"), settings, device)


@pytest.mark.parametrize("step", TILES)
def test_a_case_has_more_than_one_tile_and_remainders(step):
    """What the names "tiles" above promise."""
    name = next(name for name in LADDERS if step in LADDERS[name].steps)
    shapes, settings = CASES[name]["tiles"]
    if name == "gemm":
        (rows, depth), columns = shapes["a"], shapes["b"][1]
    elif name == "conv2d":
        result = LOOPS[name](*(np.zeros(shape) for shape in shapes.values()), **settings)
        rows, columns, depth = shapes["w"][0], result[:, 0].size, math.prod(shapes["w"][1:])
    elif name == "conv2d_backward_x":
        (n, o, *_), (_, rows, kh, kw) = shapes["dy"], shapes["w"]
        columns, depth = n * math.prod(settings["size"]), o * kh * kw
    else:
        (n, rows, oh, ow), (_, channels, *_) = shapes["dy"], shapes["x"]
        columns, depth = channels * math.prod(settings["kernel"]), n * oh * ow
    deep = 32 if is_tf32(step) else 16
    assert rows > TILES[step] and columns > TILES[step] and depth > deep
    assert rows % TILES[step] and columns % TILES[step] and depth % deep


@every_step
@pytest.mark.slow  # all of them are compiled once more
def test_no_fault_in_any_order(name, step, card):
    case = list(CASES[name])[-1]
    inputs, settings = arrays(name, case, "float32"), CASES[name][case][1]
    if is_tf32(step):
        inputs = {key: as_tf32(array) for key, array in inputs.items()}
    results = []
    for order in ORDERS:
        with options(mode="check", order=order):
            results.append(computed(name, step, inputs, settings, card))
    np.testing.assert_allclose(results[-1], LOOPS[name](**inputs, **settings), atol=1e-4)
    if step not in SCATTERS:
        assert len({result.tobytes() for result in results}) == 1


# ---------------------------------------------------------------- lessons


@pytest.mark.parametrize("name", ["conv2d_backward_x", "max_pool2d_backward"])
def test_a_scatter_depends_on_the_order_of_threads_and_a_gather_does_not(name, card):
    scatter, gather, *_ = LADDERS[name].steps
    assert scatter in SCATTERS
    settings = {"stride": 1, "padding": 1, "kernel": (3, 3)}
    shapes = {"x": (2, 3, 12, 12), "dy": (2, 3, 12, 12)}
    if name == "conv2d_backward_x":
        del settings["kernel"]
        shapes = {"dy": (2, 3, 12, 12), "w": (3, 3, 3, 3)}
    random = np.random.default_rng(0)
    inputs = {key: Tensor(random.standard_normal(shape, "f"), device=card) for key, shape in shapes.items()}
    assert not same_bits(name, scatter, inputs, settings)
    assert same_bits(name, gather, inputs, settings)
    assert same_bits(name, LADDERS[name].top, inputs, settings)


@pytest.mark.parametrize("step", sorted(SCATTERS))
def test_a_scatter_without_atomics_is_a_race(step, card):
    """What the comments of the first steps say: a plain += is reported."""
    name = next(name for name in LADDERS if step in LADDERS[name].steps)
    case = list(CASES[name])[-1]
    source = kernel.kernel_source(f"ladder/{step}")
    at = source.index("atomicAdd(&")
    end = source.index(";", at)
    to, value = source[at + len("atomicAdd(&") : end - 1].split("],", 1)
    try:
        kernel.replace_source(f"ladder/{step}", f"{source[:at]}{to}] +={value}{source[end:]}")
        with options(mode="check"), pytest.raises(KernelError, match="RACE"):
            computed(name, step, arrays(name, case, "float32"), CASES[name][case][1], card)
    finally:
        kernel.replace_source(f"ladder/{step}", None)


@pytest.mark.parametrize("step", ["lrn_2_shared", "lrn_backward_3_shared"])
def test_a_window_beyond_the_room_of_a_step_is_refused(step, card):
    name = step.split("_2_")[0].split("_3_")[0]
    x = Tensor(np.zeros((1, 40, 1, 1), "f"), device=card)
    inputs = {"x": x} if name == "lrn" else {"x": x, "dy": x}
    with pytest.raises(ArgumentError, match=f"{step}: n must be at most 17, got 19"):
        LADDERS[name].prepare(step, **inputs, **{**RESPONSE, "n": 19})


MEASURED = {  # shapes and settings small enough for a moment, and what accesses are counted for
    "gemm": ({"a": (64, 48), "b": (48, 128)}, {}, 64 * 48 * 128),
    "conv2d": (
        {"x": (1, 4, 16, 16), "w": (64, 4, 3, 3)},
        {"stride": 1, "padding": 2},
        64 * 18 * 18 * 4 * 9,
    ),
    "conv2d_backward_x": (
        {"dy": (1, 16, 12, 12), "w": (16, 16, 3, 3)},
        {"stride": 1, "padding": 1},
        16 * 16 * 144 * 9,
    ),
    "conv2d_backward_w": (
        {"dy": (1, 16, 12, 12), "x": (1, 8, 12, 12)},
        {"kernel": (3, 3), "stride": 1, "padding": 1},
        16 * 8 * 144 * 9,
    ),
    "lrn": ({"x": (1, 64, 8, 8)}, RESPONSE, 64 * 64),
    "lrn_backward": ({"x": (1, 64, 8, 8), "dy": (1, 64, 8, 8)}, RESPONSE, 64 * 64),
    "max_pool2d_backward": (
        {"x": (1, 4, 17, 17), "dy": (1, 4, 8, 8)},
        {"kernel": (3, 3), "stride": 2, "padding": 0},
        4 * 17 * 17,
    ),
}


@pytest.fixture(scope="module")
def counts(card):
    """Counts of every step of every ladder: {name: [Traffic, ...]}, from the first step to the top."""

    def of(name):
        shapes, settings, _ = MEASURED[name]
        random = np.random.default_rng(0)
        with options(mode="check"):
            inputs = {key: Tensor(random.standard_normal(shape, "f"), device=card) for key, shape in shapes.items()}
        return [traffic(name, step, inputs, settings) for step in (*LADDERS[name].steps, LADDERS[name].top)]

    seen = {}

    def get(name):
        if name not in seen:
            seen[name] = of(name)
        return seen[name]

    return get


def loads(name, traffics, memory="global"):
    """Loads by threads for each multiplication, or number of the result."""
    return [seen.accesses(memory, "load") / MEASURED[name][2] for seen in traffics]


@pytest.mark.parametrize("name", LADDERS)
def test_no_bank_conflicts(name, counts):
    for seen in counts(name):
        for row in seen.rows:
            if row.memory == "shared" and row.size <= 16:  # larger ones, of structs, are no one access on a card
                assert row.units == row.ideal, row


@pytest.mark.parametrize("name", ["gemm", "conv2d"])
def test_each_step_of_a_product_reads_less(name, counts):
    naive, tiled, blocked, tf32, top = loads(name, counts(name))
    assert naive > 8 * tiled > 16 * blocked > 16 * top * 0.75  # of so small a c, the top takes tiles of 32 rows
    assert tf32 == pytest.approx(blocked)
    _, tiled, blocked, tf32, top = loads(name, counts(name), "shared")
    assert tiled > 2.5 * blocked > 2.5 * top > 0
    assert blocked > 3.9 * tf32


def test_a_gather_has_no_atomics_and_tiles_read_less(counts):
    scatter, gather, tiled, top = seen = counts("conv2d_backward_x")
    reads = loads("conv2d_backward_x", seen)
    products = MEASURED["conv2d_backward_x"][2]
    inside = scatter.accesses("global", "atomic")  # one for every product but those of the padding
    assert 0.8 * products < inside < products
    assert [each.accesses("global", "atomic") for each in (gather, tiled, top)] == [0, 0, 0]
    assert gather.accesses("global", "load") == 2 * inside and reads[1] > 8 * reads[2]
    assert scatter.moved > 2 * gather.moved > 4 * tiled.moved


def test_parts_have_more_threads_and_read_the_same(counts):
    naive, tiled, parts, top = seen = counts("conv2d_backward_w")
    naive_reads, tiled_reads, parts_reads, top_reads = loads("conv2d_backward_w", seen)
    assert naive_reads > 8 * tiled_reads and parts_reads < 1.2 * tiled_reads and top_reads < tiled_reads
    assert parts.threads["conv2d_backward_w_parts"] >= 3 * tiled.threads["conv2d_backward_w_tiled"]


def test_windows_are_read_once(counts):
    naive, shared, top = loads("lrn", counts("lrn"))
    assert 5 < naive <= 6 and shared == pytest.approx((64 + 4) / 64)  # 2 blocks, which need 2 channels of each other
    assert top == pytest.approx((64 + 5) / 64)  # and one more, to begin with, that nobody looks at
    naive, kept, shared, top = loads("lrn_backward", counts("lrn_backward"))
    assert naive > 1.5 * kept > 10 * shared and top == pytest.approx(shared, rel=0.02)


def test_pooling_with_and_without_atomics(counts):
    scatter, gather, top = counts("max_pool2d_backward")
    outputs = 4 * 8 * 8
    assert scatter.accesses("global", "atomic") == outputs
    assert scatter.accesses("global", "load") == 2 * outputs  # dy and winner
    assert gather.accesses("global", "atomic") == top.accesses("global", "atomic") == 0
    assert gather.accesses("global", "store") == top.accesses("global", "store") == MEASURED["max_pool2d_backward"][2]


def test_climbs_count_what_the_formula_has():
    """The units and numbers of benchmarks/kernel_ladder.py, from their shapes."""
    assert list(CLIMBS) == list(LADDERS) == list(MEASURED) == list(LOOPS)
    for name, climb in CLIMBS.items():
        shapes = climb.shapes
        if name == "gemm":
            (m, k), n = shapes["a"], shapes["b"][1]
            assert (climb.units, climb.numbers) == (m * k * n, m * k + k * n + m * n)
        elif name.startswith("conv2d"):
            x, w, y = (1, 16, 27, 27), (64, 16, 5, 5), (1, 64, 27, 27)
            assert climb.units == math.prod(y) * math.prod(w[1:])
            assert climb.numbers == sum(map(math.prod, (x, w, y)))
        else:
            assert climb.units == math.prod(shapes["x"])
