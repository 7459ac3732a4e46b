"""The ways in which the CPU computes conv2d, each called by itself: against the textbook's face in float64, with tiles,
bands and threads cut in every manner, with inf and NaN; how exact they are; and which convolution goes which way.

What all ways have to do together is in test_conv2d.py.
"""

import numpy as np
import pytest
from test_conv2d import SMALL, node, tensors

import minigrad
import minigrad.functional as F
from minigrad import Tensor, gradcheck
from minigrad.ops import _conv2d_fast as fast
from minigrad.ops import _conv2d_few as few
from minigrad.ops import _conv2d_rows as by_rows
from minigrad.ops import _conv2d_winograd as winograd
from minigrad.ops._windows import nhwc

WAYS = {"winograd": winograd, "few": few, "rows": by_rows}


@pytest.fixture(autouse=True)
def plans_anew():
    """What follows from the constants, which tests change, is remembered."""
    remembered = by_rows.plan_of, winograd.plan_of, few.outputs_at_once
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def sizes_of(case):
    op = node(case)
    return by_rows.Sizes(op.s, op.p, op.d, op.groups, case[1][2:], case[1][1], op.outputs)


def arrays_of(case, dtype="float32"):
    """x, w, b and dy; a third of x is 0, as behind a ReLU."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in (
        case[0], case[1], case[1][:1], (case[0][0], case[1][0], *sizes_of(case).outputs)))  # fmt: skip
    return np.maximum(x, -0.4) + x.dtype.type(0.4), w, b, dy


def textbook(case, x, w, b, dy):
    """y, dx, dw by the formula, in float64."""
    op = node(case)
    x, w, b, dy = (a.astype(float) for a in (x, w, b, dy))
    y = op.forward(x, w, b)
    dx, dw, _ = op.backward(dy)
    return y, dx, dw


def by(way, case, x, w, b, dy):
    """y, dx, dw by one way."""
    sizes, o = sizes_of(case), case[1][0]
    kernels = fast.kernel_matrices(w, sizes.groups)
    n, (oh, ow) = len(x), sizes.outputs
    y = np.full((n, oh, ow, *kernels.shape[:2]), 7, x.dtype)
    images = nhwc(x) if nhwc(x).flags.c_contiguous else np.ascontiguousarray(nhwc(x))
    way.forward(images, kernels, b, y, sizes)
    dy = np.ascontiguousarray(nhwc(dy)).reshape(y.shape)
    dx = np.full(images.shape, 7, x.dtype)
    way.gradient_of_x(dx, dy, kernels, sizes)
    dw = way.gradient_of_w(images, dy, kernels, sizes)
    y = y.reshape(n, oh, ow, o).transpose(0, 3, 1, 2)
    return y, dx.transpose(0, 3, 1, 2), dw.reshape(o, *w.shape[2:], w.shape[1]).transpose(0, 3, 1, 2)


def error(a, exact):
    if not exact.any():
        return np.abs(a).max(initial=0)
    return np.linalg.norm(a - exact) / np.linalg.norm(exact)


# (x, weight, stride, padding, dilation, groups), as in test_conv2d.py
CASES = {
    ("winograd", "3 x 3"): ((5, 4, 9, 13), (6, 4, 3, 3), 1, 1, 1, 1),
    ("winograd", "5 x 5, groups"): ((4, 6, 11, 27), (4, 3, 5, 5), 1, 2, 1, 2),
    ("winograd", "4 across, uneven padding"): ((3, 2, 6, 10), (5, 2, 2, 4), 1, ((0, 1), (2, 1)), 1, 1),
    ("winograd", "one row, no padding"): ((2, 3, 8, 15), (4, 3, 1, 3), 1, 0, 1, 1),
    ("winograd", "narrower than a tile"): ((6, 3, 5, 4), (2, 3, 3, 3), 1, (0, 0), 1, 1),
    ("winograd", "7 across"): ((2, 3, 7, 16), (3, 3, 3, 7), 1, 3, 1, 1),
    ("few", "LeNet's first"): ((3, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1),
    ("few", "LeNet's second"): ((5, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1, 1),
    ("few", "stride and uneven padding"): ((2, 3, 13, 23), (4, 3, 3, 5), (2, 2), ((1, 0), (2, 3)), 1, 1),
    ("few", "a row of the padding only"): ((2, 2, 4, 6), (3, 2, 2, 3), 1, ((2, 3), (1, 1)), 1, 1),
    ("rows", "few channels"): ((5, 1, 7, 12), (4, 1, 3, 3), 1, ((0, 2), (1, 1)), 1, 1),
    ("rows", "few channels, dilation"): ((5, 2, 9, 17), (4, 2, 3, 2), (2, 1), 1, (1, 3), 1),
    ("rows", "groups, stride and dilation"): ((5, 4, 11, 9), (6, 2, 3, 2), 2, 1, (2, 1), 2),
    ("rows", "stride 4, 11 x 11"): ((3, 3, 34, 27), (5, 3, 11, 11), 4, ((0, 3), (0, 3)), 1, 1),
    ("rows", "stride 3, dilation 2"): ((3, 2, 17, 13), (3, 2, 5, 2), (3, 1), 2, (2, 1), 1),
    ("rows", "padding beyond the kernel"): ((5, 1, 3, 3), (2, 1, 2, 2), 1, ((3, 0), (0, 4)), 1, 1),
    ("rows", "padding below only"): SMALL["padding below only"],
    ("rows", "padding below"): ((3, 2, 2, 3), (2, 2, 2, 2), 1, ((0, 4), (3, 0)), 1, 1),
    ("rows", "windows in the padding alone"): ((2, 3, 4, 3), (2, 3, 2, 5), (1, 6), ((0, 0), (6, 8)), 1, 1),
    ("rows", "kernel of one pixel"): ((5, 3, 6, 5), (4, 3, 1, 1), 1, 0, 1, 1),
    ("rows", "kernel of one pixel, groups"): ((5, 4, 6, 3), (4, 2, 1, 1), 1, 0, 1, 2),
    ("rows", "kernel of one pixel, stride"): ((5, 3, 6, 5), (4, 3, 1, 1), 2, 1, 1, 1),
    ("rows", "no images"): ((0, 3, 6, 5), (4, 3, 3, 3), 1, 1, 1, 1),
}
cases = pytest.mark.parametrize("way, case", [(way, case) for (way, _), case in CASES.items()],
                                ids=[f"{way}, {name}" for way, name in CASES])  # fmt: skip


@cases
@pytest.mark.parametrize("depth", [1, 7, 1000])  # a row of the kernel, two or so, all rows in a band
@pytest.mark.parametrize("room", [1, 3_000, 9_000, 1e9])  # tiles: a row, some rows or images, all
def test_a_way_is_the_formula_with_tiles_and_bands_of_any_size(way, case, depth, room, monkeypatch):
    way = WAYS[way]
    for module in (by_rows, winograd):
        monkeypatch.setattr(module, "LEAST_DEPTH", depth)
        monkeypatch.setattr(module, "TILE_BYTES", room)
    monkeypatch.setattr(by_rows, "LEAST_WINDOWS", 0)
    dtype, worst = ("float32", 2e-6) if way is winograd else ("float64", 1e-14)
    arrays = arrays_of(case, dtype)
    for name, ours, exact in zip(("y", "dx", "dw"), by(way, case, *arrays), textbook(case, *arrays)):
        assert ours.shape == exact.shape and error(ours, exact) < worst, name


def test_the_cases_above_cut_images_and_kernels(monkeypatch):
    """Into tiles of unequal height and several bands, the last with fewer rows, or nothing of that is tested."""
    monkeypatch.setattr(by_rows, "LEAST_WINDOWS", 0)
    sizes = sizes_of(CASES["rows", "stride 4, 11 x 11"])
    assert [band.w.stop - band.w.start for band in by_rows.plan_of(sizes).bands] == [132, 132, 99]
    assert [band.shift for band in by_rows.plan_of(sizes).bands] == [0, 1, 2]
    monkeypatch.setattr(by_rows, "TILE_BYTES", 40_000)
    rows = {tile.j - tile.i for tile in by_rows.tiles_of(1, sizes, 8)}
    assert len(rows) == 2
    sizes = sizes_of(CASES["rows", "stride 3, dilation 2"])  # after 3 rows of the kernel, 6 / 3 = 2 rows further down
    monkeypatch.setattr(by_rows, "LEAST_DEPTH", 1)
    by_rows.plan_of.cache_clear()
    assert [band.shift for band in by_rows.plan_of(sizes).bands] == [0, 2]
    assert winograd.plan_of(sizes_of(CASES["winograd", "5 x 5, groups"])).tiles == 7  # 6 of 4 outputs, one of 3
    assert few.outputs_at_once(6, sizes_of(CASES["few", "LeNet's first"])) == 7


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("which", ["x", "w", "dy"])
@pytest.mark.parametrize("way, case", [("winograd", "3 x 3"), ("winograd", "5 x 5, groups"), ("few", "LeNet's second")])
def test_inf_and_nan_stay_where_the_formula_has_them(way, case, which, value):
    """Sums of neighbours, and zeros times neighbours, would spread them.  3e38: such sums would overflow."""
    case = CASES[way, case]
    arrays = dict(zip(("x", "w", "b", "dy"), arrays_of(case)))
    arrays[which].reshape(-1)[arrays[which].size // 2] = value
    with np.errstate(all="ignore"):
        ours = by(WAYS[way], case, *arrays.values())
        op = node(case)
        exact = op.forward(*(arrays[name] for name in ("x", "w", "b"))), *op.backward(arrays["dy"])[:2]
        for a, b in zip(ours, exact):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
            np.testing.assert_allclose(a / 1e3, b / 1e3, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- Winograd's numbers

ALEXNET = {  # two images of each
    "conv2": ((2, 96, 27, 27), (256, 48, 5, 5), 1, 2, 1, 2),
    "conv3": ((4, 256, 13, 13), (384, 256, 3, 3), 1, 1, 1, 1),
    "conv4": ((4, 384, 13, 13), (384, 192, 3, 3), 1, 1, 1, 2),
}


@pytest.mark.parametrize("case", ALEXNET.values(), ids=ALEXNET.keys())
def test_errors_at_the_shapes_of_alexnet(case):
    """y, dx and dw within 2e-6 of float64; and not as exact as by rows, or it is not Winograd's way that was taken."""
    arrays = arrays_of(case)
    exact = by(by_rows, case, *(a.astype(float) for a in arrays))
    plain = by(by_rows, case, *arrays)
    for name, ours, rows, y in zip(("y", "dx", "dw"), by(winograd, case, *arrays), plain, exact):
        assert error(ours, y) < 2e-6, name
        assert error(rows, y) < 1e-6 and error(rows, y) != error(ours, y), name


@pytest.mark.parametrize("r", [3, 4, 5, 6, 7])
def test_the_matrices_are_an_identity(r):
    """A^T ((G g) * (B^T d)) = the correlation of g with d, for every number of points; rounded to float32."""
    rng = np.random.default_rng(r)
    for n in winograd.POINTS:
        m = n - r + 1
        if m < 1:
            continue
        at, g, bt = (a.astype(float) for a in winograd.matrices(m, r))
        taps, pixels = rng.standard_normal(r), rng.standard_normal(n)
        np.testing.assert_allclose(at @ ((g @ taps) * (bt @ pixels)), np.correlate(pixels, taps), atol=3e-6)


def test_as_few_products_as_can_be():
    """AlexNet's 13 outputs of 3 taps are 3 tiles of 5 with 7 products; its 27 of 5 taps are 7 tiles of 4 with 8."""
    for case, m, n, tiles in ((ALEXNET["conv3"], 5, 7, 3), (ALEXNET["conv2"], 4, 8, 7)):
        assert winograd.plan_of(sizes_of(case))[:3] == (m, n, tiles)


# ---------------------------------------------------------------- which way, and by which threads


def way_of(case, images, dtype="float32", dx=False):
    """The names of the ways that y (or dx) of so many images is computed in."""
    sizes = sizes_of(case)
    w = fast.kernel_matrices(np.zeros(case[1], dtype), sizes.groups)
    asked = "suits_gradient_of_x" if dx else "suits"
    chosen = next(way for way in fast.WAYS if getattr(way, asked)(images, w, sizes))
    return next(name for name, way in WAYS.items() if way is chosen)


def test_which_way():
    conv1 = ((16, 3, 224, 224), (96, 3, 11, 11), 4, ((0, 3), (0, 3)), 1, 1)
    assert [way_of(case, 16) for case in (conv1, *ALEXNET.values())] == ["rows", *["winograd"] * 3]
    assert [way_of(case, 16, dx=True) for case in ALEXNET.values()] == ["winograd"] * 3
    assert {way_of(case, 16, "float64") for case in (conv1, *ALEXNET.values())} == {"rows"}
    assert way_of(ALEXNET["conv3"], 1) == "rows"  # 169 outputs do not pay for the kernels' transform
    beyond = ((16, 64, 13, 13), (64, 64, 3, 3), 1, 3, 1, 1)  # dx would be a convolution with padding -1
    assert (way_of(beyond, 16), way_of(beyond, 16, dx=True)) == ("winograd", "rows")
    for width, way in ((1, "rows"), (2, "rows"), (3, "winograd"), (4, "winograd")):  # 6 products for 3 taps
        assert way_of(((500, 64, 3, width), (64, 64, 3, 3), 1, 1, 1, 1), 500) == way
    narrow = ((500, 64, 5, 5), (64, 64, 3, 3), 1, (1, 0), 1, 1)  # rows of 3 outputs, of 5 pixels
    assert (way_of(narrow, 500), way_of(narrow, 500, dx=True)) == ("winograd", "winograd")
    narrow = ((500, 64, 5, 2), (64, 64, 3, 3), 1, 2, 1, 1)  # rows of 4 outputs, of 2 pixels
    assert (way_of(narrow, 500), way_of(narrow, 500, dx=True)) == ("winograd", "rows")
    for stride, dilation in ((2, 1), (1, 2)):
        assert way_of(((16, 64, 13, 13), (64, 64, 3, 3), stride, 1, dilation, 1), 16) == "rows"
    for name in ("LeNet's first", "LeNet's second"):
        assert {way_of(CASES["few", name], 4, dtype) for dtype in ("float32", "float64")} == {"few"}
    assert way_of(((4, 6, 14, 14), (12, 3, 5, 5), 1, 0, 1, 2), 4) == "rows"  # groups
    assert way_of(((4, 6, 14, 17), (16, 6, 5, 5), 1, 0, 1, 1), 4) == "rows"  # 13 outputs a row, which q does not divide


@pytest.mark.cpu_only("the ways are the CPU's")
def test_padding_beyond_the_kernel_by_the_public_op(device):
    """y goes Winograd's way and dx, which would be a convolution with less than no padding, by rows."""
    case = ((6, 32, 13, 13), (32, 32, 3, 3), 1, 3, 1, 1)
    assert (way_of(case, 6), way_of(case, 6, dx=True)) == ("winograd", "rows")
    x, w, b = tensors(case, device, "float32")
    y = F.conv2d(x, w, b, *case[2:])
    dy = np.random.default_rng(1).standard_normal(y.shape).astype("f")
    y.backward(dy)
    for ours, exact in zip((y, x.grad, w.grad), textbook(case, x.numpy(), w.numpy(), b.numpy(), dy)):
        assert error(ours.numpy(), exact) < 2e-6


def test_tiles_are_equal_and_as_few_as_fit():
    for count, fit in ((13, 10), (10, 3), (7, 7), (5, 1), (1, 4), (6, 0)):
        row_bytes = 1000 // fit if fit else 5000
        images = [(a, z) for a, z, i, j in by_rows.tiles_in(1000, count, 1, 0, row_bytes) if (i, j) == (0, 1)]
        rows = [(i, j) for a, z, i, j in by_rows.tiles_in(1000, 1, count, 0, row_bytes) if (a, z) == (0, 1)]
        for tiles in [images] * (fit > 0) + [rows]:  # an image larger than a tile is cut
            assert [a for a, _ in tiles] == [0, *(z for _, z in tiles[:-1])] and tiles[-1][1] == count
            sizes = [z - a for a, z in tiles]
            assert len(sizes) == -(-count // max(fit, 1)) and max(sizes) - min(sizes) <= 1


def test_a_tile_has_room_for_the_rows_that_windows_share():
    assert by_rows.tiles_in(1000, 2, 10, 2, 100) == [by_rows.Tile(a, a + 1, i, i + 5) for a in (0, 1) for i in (0, 5)]
    assert by_rows.tiles_in(1000, 3, 3, 2, 100) == [(0, 2, 0, 3), (2, 3, 0, 3)]


def test_few_channels_are_unrolled_by_rows_of_the_image():
    """A layer with one channel and many kernels: wide lies the other way round in memory, with the same numbers."""
    x = np.random.default_rng(0).standard_normal((3, 9, 11, 1), dtype="f")
    _, _, wide = next(by_rows.unrolled(x, sizes_of(((3, 1, 9, 11), (4, 1, 3, 5), 1, 0, 1, 1))))
    assert wide.flags.f_contiguous and not wide.flags.c_contiguous
    windows = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 5), (1, 2))
    np.testing.assert_array_equal(wide, windows.reshape(-1, 15))


def test_a_kernel_of_one_pixel_unrolls_nothing():
    x = np.random.default_rng(0).standard_normal((3, 5, 6, 4), dtype="f")
    ((_, _, wide),) = by_rows.unrolled(x, sizes_of(((3, 4, 5, 6), (2, 4, 1, 1), 1, 0, 1, 1)))
    assert np.shares_memory(wide, x)
    np.testing.assert_array_equal(wide, x.reshape(-1, 4))


@pytest.mark.cpu_only("threads share the images")
@pytest.mark.parametrize("case", [((5, 6, 13, 11), (8, 3, 3, 3), 1, ((1, 1), (2, 0)), 1, 2), ALEXNET["conv3"],
                                  CASES["few", "LeNet's second"]], ids=["rows", "winograd", "few"])  # fmt: skip
@pytest.mark.parametrize("n", [1, 2, 4])
def test_threads_share_the_images_and_one_image_is_left_to_blas(n, case, device, monkeypatch):
    case, dtype = ((n, *case[0][1:]), *case[1:]), "float32" if case is ALEXNET["conv3"] else "float64"
    monkeypatch.setattr(fast, "_LEAST_WORK", 0)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 0)
    seen = []
    for way in WAYS.values():
        whole = way.forward
        monkeypatch.setattr(way, "forward", lambda x, *others, whole=whole: seen.append(len(x)) or whole(x, *others))

    def run(threads):
        minigrad.set_num_threads(threads, device)
        seen.clear()
        x, w, b = tensors(case, device, dtype)
        y = F.conv2d(x, w, b, *case[2:])
        pieces = min(threads, n)
        shares = sorted(n * (i + 1) // pieces - n * i // pieces for i in range(pieces))
        assert sorted(seen) in (shares, sorted(shares * 2))  # `few` calls `rows`
        y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(dtype))
        return [a.numpy() for a in (y, x.grad, w.grad, b.grad)]

    try:
        one, *more = run(1), run(2), run(3), run(3)
    finally:
        minigrad.set_num_threads(None, device)
    for other in more:
        for a, c in zip(one, other):
            assert error(a, c) < (1e-12 if dtype == "float64" else 2e-6)
    for a, c in zip(*more[1:]):
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("way", WAYS)
def test_memory_that_is_used_again_is_written_anew(way, monkeypatch):
    """Borders and sums start from 0 for every tile, whatever the memory held: here the NaN of the image before."""
    for module in (by_rows, winograd):
        monkeypatch.setattr(module, "TILE_BYTES", 1)
        monkeypatch.setattr(module, "LEAST_DEPTH", 1)
    monkeypatch.setattr(by_rows, "LEAST_WINDOWS", 0)
    case = ((2, 2, 130, 140), (3, 2, 3, 3), 1, 1, 1, 1)
    x, w, b, dy = (np.ones_like(a) for a in arrays_of(case))
    x[0] = dy[0] = np.nan
    with np.errstate(invalid="ignore"):
        for _ in range(2):
            y, dx, dw = by(WAYS[way], case, x, w, b, dy)
    for a in (y, dx):
        assert np.isnan(a[0]).all() and not np.isnan(a[1]).any()
    assert np.isnan(dw).all()
    x[0] = dy[0] = 1
    first = by(WAYS[way], case, x, w, b, dy)
    for a, c in zip(first, textbook(case, x, w, b, dy)):
        assert error(a, c) < 1e-5  # sums of 36,400 ones, a row of the image at a time


@pytest.mark.cpu_only("the ways are the CPU's")
def test_gradients_of_winograd_against_central_differences(device, monkeypatch):
    """Its formulas in float64, in which it is otherwise never used, with matrices of float64."""
    monkeypatch.setattr(winograd, "suits", lambda *_: True)
    monkeypatch.setattr(winograd, "suits_gradient_of_x", lambda *_: True)
    exact = winograd.matrices.__wrapped__

    def in_float64(m, r):
        n, points = m + r - 1, winograd.POINTS[m + r - 1]
        v = np.zeros((n, n))
        v[:-1], v[-1, -1] = np.power.outer(np.array(points, float), np.arange(n)), 1
        a, g = v[:, :m].copy(), v[:, :r].copy()
        a[-1, -1] = g[-1, -1] = 1
        for ours, theirs in zip(exact(m, r)[0].T.astype(float), a):  # the same, but for a factor each
            np.testing.assert_allclose(ours * np.linalg.norm(theirs) / np.linalg.norm(ours), theirs, atol=1e-5)
        return a.T.copy(), g, np.linalg.inv(v).T.copy()

    monkeypatch.setattr(winograd, "matrices", in_float64)
    case = ((2, 4, 6, 11), (6, 2, 3, 3), 1, ((1, 0), (1, 1)), 1, 2)
    gradcheck(lambda x, w, b: F.conv2d(x, w, b, *case[2:]), tensors(case, device))


@pytest.mark.cpu_only("the ways are the CPU's")
def test_a_net_with_nan_in_one_image_keeps_the_others(device):
    """By the public op, at a size that goes Winograd's way."""
    x, w, b, _ = arrays_of(((16, 32, 13, 13), (32, 32, 3, 3), 1, 1, 1, 1))
    x[3, 5, 6, 7] = np.nan
    with np.errstate(invalid="ignore"):
        y = F.conv2d(*(Tensor(a, device=device) for a in (x, w, b)), padding=1).numpy()
    assert np.isnan(y).sum() == 32 * 9 and np.isnan(y[3, :, 5:8, 6:9]).all()
