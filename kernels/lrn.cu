// Local response normalisation across channels.  minigrad/ops/lrn.py.
//
//     s_i = k + alpha * sum of x_j^2,  j = max(0, i - n//2) .. min(C - 1, i + n//2)
//     y_i = x_i * s_i^-beta
//     dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j) over the same window
//
// A thread stays at a pixel and goes through its channels, one after the other; the threads of a warp are at 32 pixels
// side by side in memory.  The n numbers of a window wait in the thread's registers: with each step the oldest one goes
// and a new one comes.  So every x (and dy) is loaded once, every power is computed once, and there is nothing to wait
// for but memory.  For that the compiler must know n: the host gives it REACH = n//2.
//
// So that there are threads enough, a block does `each` channels of a group only, CHANNELS at most.  What its windows
// see of the channels before and after it loads and computes as well, REACH on either side (in backward twice that of
// x).
//
// Every window is summed afresh, in one order: a running sum along the channels would carry the rounding of all the
// channels before, and spread NaN and inf to windows that have none.
//
// Backward computes s again, from x that it needs anyway: an s kept by forward would be an array of x's size, written
// and read back.
#include "lrn.cuh"

#ifndef REACH
#define REACH 2
#endif

#define N (2 * REACH + 1)
#define MOST_REACH 8  // a thread has few registers: for wider windows there are the kernels at the end
#define PIXELS 128    // of a block: one for each thread
#define CHANNELS 32
#define AHEAD 4  // channels that a thread asks memory for before it needs the first of them

// The maps that a kernel is given.
struct Maps {
    long long pixels;            // N * H * W
    int area;                    // H * W
    int groups, channels, each;  // groups of channels, channels of a group, and of a block
};

// Where a thread works.
struct Spot {
    bool inside;       // whether there is such a pixel
    long long offset;  // where the group's channel 0 lies at the pixel; channels are counted from there
    int first, stop;   // the channels of the block
};

__device__ __forceinline__ Spot spot_of_thread(const Maps& maps) {
    int blocks_of_group = (maps.channels + maps.each - 1) / maps.each, blocks = maps.groups * blocks_of_group;
    int number = blockIdx.x % blocks, group = number / blocks_of_group;
    long long pixel = (long long)(blockIdx.x / blocks) * PIXELS + threadIdx.x, image = pixel / maps.area;
    Spot spot;
    spot.inside = pixel < maps.pixels;
    spot.offset = (image * maps.groups + group) * maps.channels * maps.area + pixel - image * maps.area;
    spot.first = (number - group * blocks_of_group) * maps.each;
    spot.stop = min(spot.first + maps.each, maps.channels);
    return spot;
}

// Numbers of COUNT channels that follow each other.
template <int COUNT>
struct Window {
    REAL of[COUNT];  // the oldest first
    __device__ __forceinline__ void push(REAL newest) {
#pragma unroll
        for (int d = 1; d < COUNT; d++) of[d - 1] = of[d];  // registers change their names, nothing is moved
        of[COUNT - 1] = newest;
    }
    __device__ __forceinline__ REAL sum() {
        REAL total = 0;
#pragma unroll
        for (int d = 0; d < COUNT; d++) total += of[d];
        return total;
    }
};

// x of channels first, first + 1, ..., with 0 where the group has none.  x points to its channel 0.
template <int COUNT>
__device__ __forceinline__ Window<COUNT> loaded(const REAL* __restrict__ x, const Maps& maps, int first) {
    Window<COUNT> channels;
    x += (long long)first * maps.area;
#pragma unroll
    for (int d = 0; d < COUNT; d++, x += maps.area)
        channels.of[d] = (unsigned)(first + d) < (unsigned)maps.channels ? *x : REAL(0);
    return channels;
}

// The launch bounds tell the compiler that it may take 128 registers (in float it takes half of them), so that it
// compiles the pow of float64 without a stack.

extern "C" __global__ __launch_bounds__(PIXELS, 4) void lrn_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, const __grid_constant__ Maps maps, REAL k, REAL alpha,
    REAL beta) {
    Spot spot = spot_of_thread(maps);
    if (!spot.inside) return;
    x += spot.offset;
    y += spot.offset + (long long)spot.first * maps.area;
    with_powers(beta, [&](auto powers) {
        Window<N> near = loaded<N>(x, maps, spot.first - 1 - REACH), squares;  // of x, around channel i - 1
        for (int d = 0; d < N; d++) squares.of[d] = near.of[d] * near.of[d];
        for (int i = spot.first; i < spot.stop; i += AHEAD) {
            Window<AHEAD> next = loaded<AHEAD>(x, maps, i + REACH);
#pragma unroll
            for (int r = 0; r < AHEAD; r++, y += maps.area) {
                near.push(next.of[r]);  // and now around channel i + r
                squares.push(next.of[r] * next.of[r]);
                REAL s = k + alpha * squares.sum();
                if (i + r < spot.stop) *y = near.of[REACH] * powers(s).minus_beta;
            }
        }
    });
}

extern "C" __global__ __launch_bounds__(PIXELS, 4) void lrn_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, REAL* __restrict__ dx, const __grid_constant__ Maps maps,
    REAL k, REAL alpha, REAL beta) {
    Spot spot = spot_of_thread(maps);
    if (!spot.inside) return;
    x += spot.offset;
    dy += spot.offset;
    dx += spot.offset + (long long)(spot.first - 2 * REACH) * maps.area;
    with_powers(beta, [&](auto powers) {
        Window<N> near = loaded<N>(x, maps, spot.first - N), squares, terms = {};  // terms: dy_j * y_j / s_j
        Window<REACH + 1> shares = {};                                             // dy_j * s_j^-beta
        for (int d = 0; d < N; d++) squares.of[d] = near.of[d] * near.of[d];
        // j is REACH ahead of i, whose window it completes.  The first 2 * REACH channels complete none.
        for (int j = spot.first - REACH; j < spot.stop + REACH; j += AHEAD) {
            Window<AHEAD> next_x = loaded<AHEAD>(x, maps, j + REACH), next_dy = loaded<AHEAD>(dy, maps, j);
#pragma unroll
            for (int r = 0; r < AHEAD; r++, dx += maps.area) {
                near.push(next_x.of[r]);
                squares.push(next_x.of[r] * next_x.of[r]);
                Powers s = powers(k + alpha * squares.sum());
                shares.push(next_dy.of[r] * s.minus_beta);
                // Where there is no channel j + r, x and dy are 0, but its power of s may be infinite.
                bool inside = (unsigned)(j + r) < (unsigned)maps.channels;
                terms.push(inside ? shares.of[REACH] * near.of[REACH] * s.inverse : REAL(0));
                int i = j + r - REACH;
                if (i >= spot.first && i < spot.stop) *dx = shares.of[0] - 2 * alpha * beta * terms.sum() * near.of[0];
            }
        }
    });
}

// ---------------------------------------------------------------- wide windows

// One thread for each number, which goes through its window in memory.  s is kept for backward.

// The channel of number e, counted in its group.
__device__ __forceinline__ int channel_of(long long e, const Maps& maps) {
    return (int)(e / maps.area % maps.channels);
}

extern "C" __global__ void lrn_wide_forward(const REAL* __restrict__ x, REAL* __restrict__ y, REAL* __restrict__ s,
                                            const __grid_constant__ Maps maps, int reach, REAL k, REAL alpha,
                                            REAL beta) {
    long long e = global_thread();
    if (e >= maps.pixels * maps.groups * maps.channels) return;
    int i = channel_of(e, maps), last = min(i + reach, maps.channels - 1);
    const REAL* channel_0 = x + e - (long long)i * maps.area;
    REAL sum = 0;
    for (int j = max(i - reach, 0); j <= last; j++) {
        REAL x_j = channel_0[(long long)j * maps.area];
        sum += x_j * x_j;
    }
    REAL s_e = k + alpha * sum;
    s[e] = s_e;
    with_powers(beta, [&](auto powers) { y[e] = x[e] * powers(s_e).minus_beta; });
}

extern "C" __global__ void lrn_wide_backward(const REAL* __restrict__ x, const REAL* __restrict__ s,
                                             const REAL* __restrict__ dy, REAL* __restrict__ dx,
                                             const __grid_constant__ Maps maps, int reach, REAL alpha, REAL beta) {
    long long e = global_thread();
    if (e >= maps.pixels * maps.groups * maps.channels) return;
    int i = channel_of(e, maps), last = min(i + reach, maps.channels - 1);
    long long channel_0 = e - (long long)i * maps.area;
    with_powers(beta, [&](auto powers) {
        REAL total = 0;
        for (int j = max(i - reach, 0); j <= last; j++) {
            long long at = channel_0 + (long long)j * maps.area;
            Powers s_j = powers(s[at]);
            total += dy[at] * s_j.minus_beta * x[at] * s_j.inverse;
        }
        dx[e] = dy[e] * powers(s[e]).minus_beta - 2 * alpha * beta * total * x[e];
    });
}
