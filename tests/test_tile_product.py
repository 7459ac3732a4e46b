"""How products are cut into tiles and parts for a card: minigrad/ops/_tile_product.py."""

import math

import pytest

from minigrad.gpu import nvrtc
from minigrad.gpu.sources import constants
from minigrad.ops import _gemm
from minigrad.ops._tile_product import AT_ONCE, LEAST_PART, TILE_ROWS, cut

COLUMNS, DEPTH_BYTES = constants("conv2d", "TILE_COLUMNS", "DEPTH_BYTES")


def blocks_of(rows, columns, depth, products, itemsize=4):
    tile, parts, _ = cut(rows, columns, depth, products, TILE_ROWS[itemsize], itemsize)
    return tile, parts, parts * products * math.ceil(rows / tile) * math.ceil(columns / COLUMNS)


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("products", [1, 2, 5])
@pytest.mark.parametrize("columns", [0, 1, 129, 2**33])
@pytest.mark.parametrize("depth", [0, 1, 127, 128, 1000, 93312, 2**31 + 5, 2**40])
def test_parts_cover_the_sum(products, columns, depth, itemsize):
    for rows in (1, 33, 130):
        tile, parts, part = cut(rows, columns, depth, products, TILE_ROWS[itemsize], itemsize)
        assert tile in TILE_ROWS[itemsize]
        assert part > 0 and part % (DEPTH_BYTES // itemsize) == 0  # whole tiles
        assert parts >= 1 and (parts - 1) * part < max(1, depth) <= parts * part
        assert parts == 1 or depth // parts >= LEAST_PART - DEPTH_BYTES


# Of AlexNet at batch 128, on one device and in two columns: rows, columns, depth and groups of y, dx and dw.
ALEXNET = {
    "conv1 y": (96, 387200, 363, 1),
    "conv1 dw": (96, 363, 387200, 1),
    "conv2 y": (128, 93312, 1200, 2),
    "conv2 dx": (48, 93312, 3200, 2),
    "conv2 dw": (128, 1200, 93312, 2),
    "conv3 y": (384, 21632, 2304, 1),
    "conv3 dx": (256, 21632, 3456, 1),
    "conv3 dw": (384, 2304, 21632, 1),
    "conv4 y": (192, 21632, 1728, 2),
    "conv4 dw": (192, 1728, 21632, 2),
    "conv5 y": (128, 21632, 1728, 2),
    "conv5 dx": (192, 21632, 1152, 2),
    "conv5 dw": (128, 1728, 21632, 2),
    "a column's conv1 y": (48, 387200, 363, 1),
    "a column's conv1 dw": (48, 363, 387200, 1),
    "a column's conv2 y": (128, 93312, 1200, 1),
    "a column's conv3 y": (192, 21632, 2304, 1),
    "a column's conv4 y": (192, 21632, 1728, 1),
    "a column's conv5 y": (128, 21632, 1728, 1),
    "a column's conv5 dw": (128, 1728, 21632, 1),
}


@pytest.mark.parametrize("sizes", ALEXNET.values(), ids=ALEXNET)
def test_at_alexnet_s_sizes_no_row_is_idle_and_waves_are_full(sizes):
    rows, *_ = sizes
    tile, _, blocks = blocks_of(*sizes)
    assert rows % tile == 0
    waves = blocks / AT_ONCE
    assert waves / math.ceil(waves) > 0.9


def test_large_products_get_large_tiles_and_no_parts():
    assert cut(4096, 4096, 4096, 1, TILE_ROWS[4], 4)[:2] == (128, 1)
    assert cut(4096, 4096, 4096, 1, TILE_ROWS[8], 8)[:2] == (64, 1)


def test_rows_that_fit_no_tile_leave_few_idle():
    assert cut(97, 10**7, 100, 1, TILE_ROWS[4], 4)[0] == 128  # and not 96 twice
    assert cut(40, 10**7, 100, 1, TILE_ROWS[4], 4)[0] == 48
    assert cut(10, 10**7, 100, 1, TILE_ROWS[4], 4)[0] == 32


def test_the_compile_gate_knows_all_tiles():
    assert nvrtc.TILE_ROWS == {"conv2d": TILE_ROWS, "gemm": _gemm.TILES}
    conv2d = [(types["REAL"], int(types["TILE_ROWS"]), "TF32" in types) for types in nvrtc.variants("conv2d")]
    floats = [("float", n, tf32) for tf32 in (False, True) for n in TILE_ROWS[4]]
    assert sorted(conv2d) == sorted([*floats, *(("double", n, False) for n in TILE_ROWS[8])])
    assert {types["TILE_ROWS"] for types in nvrtc.variants("gemm") if types["T"] == "long long"} == {"64", "32"}
