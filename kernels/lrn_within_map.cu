// Local response normalisation within a map: over neighbouring pixels of one channel.  minigrad/ops/lrn.py.
//
//     s[i,j] = k + alpha * sum of x[u,v]^2 over the n x n pixels around (i,j), clipped at the borders
//     y = x * s^-beta
//     dx = dy * s^-beta - 2 alpha beta x * (sum of dy * y / s over the same window)
//
// A block has a tile of TILE x TILE pixels of one map, a warp one row of it at a time; a thread stays in its column and
// has every ROWS-th row.  The terms of a sum go through shared memory, a tile of them at a time: this tile's, and those
// of the tiles around it as far as the windows reach.  A map of up to 32 x 32 is one tile, without neighbours.
//
// Backward takes two kernels, since its sum needs s also at the pixels around the tile: the first computes s again.
// That moves no more memory than keeping s would, and holds it for a shorter time.

#include "lrn.cuh"

// The launch bounds ask for 3 blocks at a time on a multiprocessor: more would leave a thread too few registers, and
// the compiler would spill some to memory.

#define TILE 32
#define ROWS 8
#define OWN (TILE / ROWS)  // pixels of a thread

// What all maps have in common.
struct Maps {
    int height, width;
    int reach_down, reach_across;  // n//2, or less in a map that is smaller: how far a window goes to either side
};

// What a block works on.
struct Tile {
    long long map;  // where its map begins
    int row, col;   // of the tile's first pixel
};

__device__ __forceinline__ Tile tile_of_block(const Maps& maps) {
    int down = (maps.height + TILE - 1) / TILE, across = (maps.width + TILE - 1) / TILE;
    Place at = place_of(blockIdx.x, down, across);
    return {at.map * maps.height * maps.width, at.row * TILE, at.col * TILE};
}

// What the threads of a block share: the terms of a tile, and their sums along the rows.
struct Shared {
    REAL terms[TILE][TILE], sums[TILE][TILE];
};

// One number for each of a thread's pixels.
struct Totals {
    REAL of[OWN];
};

// of[r] = the sum of term(pixel) over the window around this thread's pixel r.  All threads of the block must call it.
template <class Term>
__device__ __forceinline__ Totals window_sums(const Maps& maps, Tile tile, Term term, Shared& shared) {
    int x = threadIdx.x;
    int top = max(tile.row - maps.reach_down, 0), bottom = min(tile.row + TILE + maps.reach_down, maps.height);
    int left = max(tile.col - maps.reach_across, 0), right = min(tile.col + TILE + maps.reach_across, maps.width);
    Totals total = {};
    for (int row0 = top / TILE * TILE; row0 < bottom; row0 += TILE) {
        for (int col0 = left / TILE * TILE; col0 < right; col0 += TILE) {
            // The terms of the tile at (row0, col0); 0 where none is needed, or where the map has ended.
            for (int r = threadIdx.y; r < TILE; r += ROWS) {
                int row = row0 + r, col = col0 + x;
                bool needed = row >= top && row < bottom && col >= left && col < right;
                shared.terms[r][x] = needed ? term(row * maps.width + col) : REAL(0);
            }
            __syncthreads();
            // Their sums along the rows, over the part of each window that is in this tile.
            int first = max(tile.col + x - maps.reach_across - col0, 0);
            int last = min(tile.col + x + maps.reach_across - col0, TILE - 1);
            for (int r = threadIdx.y; r < TILE; r += ROWS) {
                REAL sum = 0;
                for (int c = first; c <= last; c++) sum += shared.terms[r][c];
                shared.sums[r][x] = sum;
            }
            __syncthreads();
            // The sums of those down the columns.  The next round writes to `terms`, which all have read, and then
            // waits before it writes to `sums`.
#pragma unroll
            for (int r = 0; r < OWN; r++) {
                int row = tile.row + threadIdx.y + r * ROWS;
                int lowest = min(row + maps.reach_down - row0, TILE - 1);
                for (int u = max(row - maps.reach_down - row0, 0); u <= lowest; u++) total.of[r] += shared.sums[u][x];
            }
        }
    }
    return total;
}

// Calls work(pixel, r) for each of this thread's pixels that is in the map.
template <class Work>
__device__ __forceinline__ void for_own_pixels(const Maps& maps, Tile tile, Work work) {
    int col = tile.col + threadIdx.x;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int row = tile.row + threadIdx.y + r * ROWS;
        if (row < maps.height && col < maps.width) work(row * maps.width + col, r);
    }
}

extern "C" __global__ __launch_bounds__(TILE * ROWS, 2) void lrn_within_map_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, const __grid_constant__ Maps maps, REAL k, REAL alpha,
    REAL beta) {
    __shared__ Shared shared;
    Tile tile = tile_of_block(maps);
    x += tile.map;
    y += tile.map;
    Totals total = window_sums(maps, tile, [&](int i) { return x[i] * x[i]; }, shared);
    with_powers(beta, [&](auto powers) {
        for_own_pixels(maps, tile, [&](int i, int r) { y[i] = x[i] * powers(k + alpha * total.of[r]).minus_beta; });
    });
}

extern "C" __global__ __launch_bounds__(TILE * ROWS, 2) void lrn_within_map_scale(
    const REAL* __restrict__ x, REAL* __restrict__ s, const __grid_constant__ Maps maps, REAL k, REAL alpha) {
    __shared__ Shared shared;
    Tile tile = tile_of_block(maps);
    x += tile.map;
    s += tile.map;
    Totals total = window_sums(maps, tile, [&](int i) { return x[i] * x[i]; }, shared);
    for_own_pixels(maps, tile, [&](int i, int r) { s[i] = k + alpha * total.of[r]; });
}

extern "C" __global__ __launch_bounds__(TILE * ROWS, 2) void lrn_within_map_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ s, const REAL* __restrict__ dy, REAL* __restrict__ dx,
    const __grid_constant__ Maps maps, REAL alpha, REAL beta) {
    __shared__ Shared shared;
    Tile tile = tile_of_block(maps);
    x += tile.map;
    s += tile.map;
    dy += tile.map;
    dx += tile.map;
    with_powers(beta, [&](auto powers) {
        auto term = [&](int i) {  // dy * y / s
            Powers s_i = powers(s[i]);
            return dy[i] * x[i] * s_i.minus_beta * s_i.inverse;
        };
        Totals total = window_sums(maps, tile, term, shared);
        for_own_pixels(maps, tile, [&](int i, int r) {
            dx[i] = dy[i] * powers(s[i]).minus_beta - 2 * alpha * beta * total.of[r] * x[i];
        });
    });
}
