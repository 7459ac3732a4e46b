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

// Launch bounds: 3 blocks at a time on a multiprocessor leave registers enough to spill none.

#define TILE 32
#define ROWS 8
#define OWN (TILE / ROWS)  // pixels of a thread

// What a block works on.
struct Part {
    long long map;      // where the map begins
    int height, width;  // of the map
    int row, col;       // of the tile's first pixel
};

__device__ __forceinline__ Part part_of_block(int height, int width) {
    int down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
    Place tile = place_of(blockIdx.x, down, across);
    return {tile.map * height * width, height, width, tile.row * TILE, tile.col * TILE};
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
__device__ __forceinline__ Totals window_sums(Part part, int reach_down, int reach_across, Term term, Shared& shared) {
    int x = threadIdx.x;
    int top = max(part.row - reach_down, 0), bottom = min(part.row + TILE + reach_down, part.height);
    int left = max(part.col - reach_across, 0), right = min(part.col + TILE + reach_across, part.width);
    Totals total = {};
    for (int row0 = top / TILE * TILE; row0 < bottom; row0 += TILE) {
        for (int col0 = left / TILE * TILE; col0 < right; col0 += TILE) {
            // The terms of the tile at (row0, col0); 0 where none is needed, or where the map has ended.
            for (int r = threadIdx.y; r < TILE; r += ROWS) {
                int row = row0 + r, col = col0 + x;
                bool needed = row >= top && row < bottom && col >= left && col < right;
                shared.terms[r][x] = needed ? term(row * part.width + col) : REAL(0);
            }
            __syncthreads();
            // Their sums along the rows, over the part of each window that is in this tile.
            int first = max(part.col + x - reach_across - col0, 0);
            int last = min(part.col + x + reach_across - col0, TILE - 1);
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
                int row = part.row + threadIdx.y + r * ROWS;
                int lowest = min(row + reach_down - row0, TILE - 1);
                for (int u = max(row - reach_down - row0, 0); u <= lowest; u++) total.of[r] += shared.sums[u][x];
            }
        }
    }
    return total;
}

// Calls work(pixel, r) for each of this thread's pixels that is in the map.
template <class Work>
__device__ __forceinline__ void for_own_pixels(Part part, Work work) {
    int col = part.col + threadIdx.x;
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int row = part.row + threadIdx.y + r * ROWS;
        if (row < part.height && col < part.width) work(row * part.width + col, r);
    }
}

// s^beta; roots are much faster than a power.
__device__ __forceinline__ REAL power(REAL s, REAL beta) {
    if (beta == REAL(0.75)) return sqrt(s) * sqrt(sqrt(s));
    if (beta == REAL(0.5)) return sqrt(s);
    return pow(s, beta);
}

extern "C" __global__ __launch_bounds__(256, 3) void lrn_within_map_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, int height, int width, int reach_down, int reach_across,
    REAL k, REAL alpha, REAL beta) {
    __shared__ Shared shared;
    Part part = part_of_block(height, width);
    x += part.map;
    y += part.map;
    Totals total = window_sums(part, reach_down, reach_across, [&](int i) { return x[i] * x[i]; }, shared);
    for_own_pixels(part, [&](int i, int r) { y[i] = x[i] / power(k + alpha * total.of[r], beta); });
}

extern "C" __global__ __launch_bounds__(256, 3) void lrn_within_map_scale(
    const REAL* __restrict__ x, REAL* __restrict__ s, int height, int width, int reach_down, int reach_across,
    REAL k, REAL alpha) {
    __shared__ Shared shared;
    Part part = part_of_block(height, width);
    x += part.map;
    s += part.map;
    Totals total = window_sums(part, reach_down, reach_across, [&](int i) { return x[i] * x[i]; }, shared);
    for_own_pixels(part, [&](int i, int r) { s[i] = k + alpha * total.of[r]; });
}

extern "C" __global__ __launch_bounds__(256, 3) void lrn_within_map_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ s, const REAL* __restrict__ dy, REAL* __restrict__ dx,
    int height, int width, int reach_down, int reach_across, REAL alpha, REAL beta) {
    __shared__ Shared shared;
    Part part = part_of_block(height, width);
    x += part.map;
    s += part.map;
    dy += part.map;
    dx += part.map;
    auto term = [&](int i) { return dy[i] / power(s[i], beta) * x[i] / s[i]; };  // dy * y / s
    Totals total = window_sums(part, reach_down, reach_across, term, shared);
    for_own_pixels(part, [&](int i, int r) {
        dx[i] = dy[i] / power(s[i], beta) - 2 * alpha * beta * total.of[r] * x[i];
    });
}
