// Local response normalisation within a map: over neighbouring pixels of one channel.  minigrad/ops/lrn.py.
//
//     s[i,j] = k + alpha * sum of x[u,v]^2 over the n x n pixels around (i,j), clipped at the borders
//     y = x * s^-beta
//     dx = dy * s^-beta - 2 alpha beta x * (sum of dy * y / s over the same window)
//
// A block has a tile of TILE x TILE pixels of one map, a warp one row of it at a time; a thread stays in its column and
// has every ROWS-th row.  The terms of all sums, 0 beyond the borders, go to shared memory; then they are added along
// the rows, and these sums down the columns: 2n additions for a pixel, not n * n.  What the tile's outermost pixels,
// REACH = n//2 on either side, would need is not in the tile: they are of other tiles, whose inner pixels overlap with
// no others.
//
// Backward takes two kernels, since its sum needs s also at the pixels around the inner ones: the first computes s
// again.  That moves no more memory than keeping s would, and holds it for a shorter time.
#include "lrn.cuh"

#ifndef REACH
#define REACH 2  // from the host, so that the compiler writes out the loops over a window
#endif

#define N (2 * REACH + 1)
#define MOST_REACH 8  // a tile would be little more than its border: for wider windows there are the kernels at the end
#define TILE 32
#define ROWS 8
#define INNER (TILE - 2 * REACH)
#define OWN (TILE / ROWS)  // pixels of a thread

// What all maps have in common, and how many there are.
struct Maps {
    long long maps;
    int height, width;
};

// What a block works on.
struct Tile {
    long long map;  // where its map begins
    int row, col;   // of the tile's first inner pixel
};

__device__ __forceinline__ Tile tile_of_block(const Maps& maps) {
    int down = (maps.height + INNER - 1) / INNER, across = (maps.width + INNER - 1) / INNER;
    Place at = place_of(blockIdx.x, down, across);
    return {at.map * maps.height * maps.width, at.row * INNER, at.col * INNER};
}

// What the threads of a block share: the terms of a tile, and their sums along the rows.
struct Shared {
    REAL terms[TILE][TILE], sums[TILE][TILE];
};

// One number for each of a thread's pixels.
struct Totals {
    REAL of[OWN];
};

// of[r] = the sum of term(pixel) over the window around this thread's inner pixel r.  All threads of the block call it.
template <class Term>
__device__ __forceinline__ Totals window_sums(const Maps& maps, Tile tile, Term term, Shared& shared) {
    int x = threadIdx.x, y = threadIdx.y;
    int col = tile.col - REACH + x;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int row = tile.row - REACH + y + r * ROWS;
        bool inside = (unsigned)row < (unsigned)maps.height && (unsigned)col < (unsigned)maps.width;
        shared.terms[y + r * ROWS][x] = inside ? term(row * maps.width + col) : REAL(0);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < OWN && x < INNER; r++) {
        REAL sum = 0;
#pragma unroll
        for (int d = 0; d < N; d++) sum += shared.terms[y + r * ROWS][x + d];
        shared.sums[y + r * ROWS][x] = sum;
    }
    __syncthreads();
    Totals total = {};
#pragma unroll
    for (int r = 0; r < OWN; r++)
#pragma unroll
        for (int d = 0; d < N; d++)
            if (x < INNER && y + r * ROWS < INNER) total.of[r] += shared.sums[y + r * ROWS + d][x];
    return total;
}

// Calls work(pixel, r) for each of this thread's inner pixels that is in the map.
template <class Work>
__device__ __forceinline__ void for_own_pixels(const Maps& maps, Tile tile, Work work) {
    int col = tile.col + threadIdx.x;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int y = threadIdx.y + r * ROWS, row = tile.row + y;
        if (threadIdx.x < INNER && y < INNER && row < maps.height && col < maps.width) work(row * maps.width + col, r);
    }
}

// The launch bounds ask for 2 blocks at a time on a multiprocessor at least: so the compiler has registers enough.

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
            return dy[i] * s_i.minus_beta * x[i] * s_i.inverse;
        };
        Totals total = window_sums(maps, tile, term, shared);
        for_own_pixels(maps, tile, [&](int i, int r) {
            dx[i] = dy[i] * powers(s[i]).minus_beta - 2 * alpha * beta * total.of[r] * x[i];
        });
    });
}

// ---------------------------------------------------------------- wide windows

// One thread for each number, which goes through its window in memory.  s is kept for backward.

// The sum of term(e) over the window around number e of all maps; a sum for each row, for digits' sake.
template <class Term>
__device__ __forceinline__ REAL wide_sum(const Maps& maps, long long e, int reach, Term term) {
    Place at = place_of(e, maps.height, maps.width);
    int bottom = min(at.row + reach, maps.height - 1), right = min(at.col + reach, maps.width - 1);
    REAL total = 0;
    for (int row = max(at.row - reach, 0); row <= bottom; row++) {
        REAL sum = 0;
        for (int col = max(at.col - reach, 0); col <= right; col++)
            sum += term((at.map * maps.height + row) * maps.width + col);
        total += sum;
    }
    return total;
}

extern "C" __global__ void lrn_within_map_wide_forward(const REAL* __restrict__ x, REAL* __restrict__ y,
                                                       REAL* __restrict__ s, const __grid_constant__ Maps maps,
                                                       int reach, REAL k, REAL alpha, REAL beta) {
    long long e = global_thread();
    if (e >= maps.maps * maps.height * maps.width) return;
    REAL s_e = k + alpha * wide_sum(maps, e, reach, [&](long long i) { return x[i] * x[i]; });
    s[e] = s_e;
    with_powers(beta, [&](auto powers) { y[e] = x[e] * powers(s_e).minus_beta; });
}

extern "C" __global__ void lrn_within_map_wide_backward(const REAL* __restrict__ x, const REAL* __restrict__ s,
                                                        const REAL* __restrict__ dy, REAL* __restrict__ dx,
                                                        const __grid_constant__ Maps maps, int reach, REAL alpha,
                                                        REAL beta) {
    long long e = global_thread();
    if (e >= maps.maps * maps.height * maps.width) return;
    with_powers(beta, [&](auto powers) {
        REAL total = wide_sum(maps, e, reach, [&](long long i) {
            Powers s_i = powers(s[i]);
            return dy[i] * s_i.minus_beta * x[i] * s_i.inverse;
        });
        dx[e] = dy[e] * powers(s[e]).minus_beta - 2 * alpha * beta * total * x[e];
    });
}
