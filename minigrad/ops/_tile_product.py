"""What the host decides for kernels/tile_product.cuh: how a product of matrices is cut into the work of blocks.

A block makes a tile of TILE_ROWS x 128 sums.  The larger a tile, the less is read for it; but rows beyond the last of
the matrix are work for nothing, and so are multiprocessors without a block: blocks run in waves, as many at a time as
fit a card, and the last wave is rarely full.  Where there are few tiles, sums are cut into parts by depth, each with
blocks of its own; but parts must be written, read and added.

`cut` counts all that, and takes the least.  No card is asked: the same bits come out on all.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..gpu import blocks
from ..gpu.sources import constants, remembered

TILE_ROWS = {4: (128, 96, 64, 48, 32), 8: (64, 32)}  # what the kernels may be compiled with; keys: bytes of an element

# What is counted, for one more of the depth: the instructions of a block are about as many as its tile has rows, and
# FETCH more for fetching, which does not depend on them.  A number that is written to memory, or read there, costs a
# card as much as NUMBER of these.  (python -m minigrad.nvrtc compiles the kernels; nvdisasm shows their instructions.)
AT_ONCE = 264  # blocks of a wave: two on each of 132 multiprocessors
FETCH = 25
NUMBER = 1 / 900
ADDING = 2500  # another launch
LEAST_PART = 128  # terms


@remembered
def cut(
    rows: int, columns: int, depth: int, products: int, tiles: Sequence[int], itemsize: int
) -> tuple[int, int, int]:
    """How to cut `products` products of rows x depth x columns: TILE_ROWS, one of `tiles`; parts; terms of a part."""
    tile_columns, depth_bytes = constants("conv2d", "TILE_COLUMNS", "DEPTH_BYTES")
    step = depth_bytes // itemsize  # a part is made of whole tiles

    def cost(tile: int, part: int) -> float:
        parts = blocks(depth, part)
        waves = blocks(parts * products * blocks(rows, tile) * blocks(columns, tile_columns), AT_ONCE)
        adding = 0 if parts == 1 else ADDING + NUMBER * products * rows * columns * (2 * parts + 1)
        return waves * part * (tile + FETCH) + adding

    def part_of(parts: int) -> int:
        return max(1, blocks(depth, parts * step)) * step

    few = max(1, products * blocks(rows, tiles[0]) * blocks(columns, tile_columns))
    most = max(1, min(depth // LEAST_PART, blocks(4 * AT_ONCE, few)))
    choices = [(tile, part_of(parts)) for tile in tiles for parts in range(1, most + 1)]
    tile, part = min(choices, key=lambda choice: cost(*choice))
    return tile, max(1, blocks(depth, part)), part
