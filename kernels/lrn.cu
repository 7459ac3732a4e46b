// Local response normalisation across channels.  minigrad/ops/lrn.py.
//
//     s_i = k + alpha * sum of x_j^2,  j = max(0, i - n//2) .. min(C - 1, i + n//2)
//     y_i = x_i * s_i^-beta
//     dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j) over the same window
//
// A block has CHANNELS channels (of one group) of PIXELS pixels, a warp takes one channel of all of them at a time:
// 32 numbers side by side in memory.  A thread stays at its pixel and has every ROWS-th channel.
//
// Every window is summed afresh, in one order: a running sum along the channels would carry the rounding of all the
// channels before, and spread NaN and inf to windows that have none.  An x is read for n windows, by the threads of one
// block: from memory once, then from the L1 cache, which is a part of the same memory as shared memory.
//
// Backward computes s again, from x that it needs anyway: an s kept by forward would be an array of x's size, written
// and read back.  The terms of the second sum take a power each.  They go through shared memory, so that a block
// computes each of them once, for all its windows.

// Launch bounds: 3 blocks at a time on a multiprocessor leave registers enough to spill none.

#define PIXELS 32
#define CHANNELS 32
#define ROWS 8
#define OWN (CHANNELS / ROWS)  // channels of a thread

// What a thread works on.
struct Part {
    bool inside;       // whether there is such a pixel
    long long offset;  // where the pixel's channel 0 lies
    int begin, end;    // the channels of the group
    int first;         // the first channel of the block; the thread's are first + threadIdx.y + r * ROWS
};

__device__ __forceinline__ Part part_of_thread(long long pixels, long long area, int groups, int channels) {
    int blocks_of_group = (channels + CHANNELS - 1) / CHANNELS, blocks = groups * blocks_of_group;
    int number = blockIdx.x % blocks, group = number / blocks_of_group;
    long long pixel = (long long)(blockIdx.x / blocks) * PIXELS + threadIdx.x, image = pixel / area;
    Part part;
    part.inside = pixel < pixels;
    part.offset = image * area * groups * channels + pixel - image * area;
    part.begin = group * channels;
    part.end = part.begin + channels;
    part.first = part.begin + (number - group * blocks_of_group) * CHANNELS;
    return part;
}

// s of channel i; x points to channel 0 of the pixel.
__device__ __forceinline__ REAL scale(const REAL* __restrict__ x, long long area, Part part, int i, int reach, REAL k,
                                      REAL alpha) {
    int last = min(i + reach, part.end - 1);
    REAL sum = 0;
    for (int j = max(i - reach, part.begin); j <= last; j++) {
        REAL x_j = x[j * area];
        sum += x_j * x_j;
    }
    return k + alpha * sum;
}

// s^beta; roots are much faster than a power.
__device__ __forceinline__ REAL power(REAL s, REAL beta) {
    if (beta == REAL(0.75)) return sqrt(s) * sqrt(sqrt(s));
    if (beta == REAL(0.5)) return sqrt(s);
    return pow(s, beta);
}

// pixels: N * H * W.  area: H * W.  channels: of a group.  reach: n//2.
extern "C" __global__ __launch_bounds__(256, 3) void lrn_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, long long pixels, long long area, int groups, int channels,
    int reach, REAL k, REAL alpha, REAL beta) {
    Part part = part_of_thread(pixels, area, groups, channels);
    if (!part.inside) return;
    x += part.offset;
    y += part.offset;
    int stop = min(part.first + CHANNELS, part.end);
    for (int i = part.first + threadIdx.y; i < stop; i += ROWS) {
        REAL s = scale(x, area, part, i, reach, k, alpha);
        y[i * area] = x[i * area] / power(s, beta);
    }
}

extern "C" __global__ __launch_bounds__(256, 3) void lrn_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, REAL* __restrict__ dx, long long pixels,
    long long area, int groups, int channels, int reach, REAL k, REAL alpha, REAL beta) {
    __shared__ REAL terms[CHANNELS][PIXELS];
    Part part = part_of_thread(pixels, area, groups, channels);
    x += part.offset;
    dy += part.offset;
    dx += part.offset;
    int lane = threadIdx.x;
    // The channels whose terms the block needs; they pass through shared memory CHANNELS at a time, in step with the
    // blocks, so that a window of any width will do.
    int low = max(part.first - reach, part.begin), high = min(part.first + CHANNELS + reach, part.end);
    int piece = part.first - (part.first - low + CHANNELS - 1) / CHANNELS * CHANNELS;
    REAL share[OWN] = {}, total[OWN] = {};  // dy_i * s_i^-beta, and the sum of the terms
    for (; piece < high; piece += CHANNELS) {
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            int row = threadIdx.y + r * ROWS, j = piece + row;
            if (part.inside && j >= low && j < high) {
                REAL s = scale(x, area, part, j, reach, k, alpha);
                REAL value = dy[j * area] / power(s, beta);
                if (piece == part.first) share[r] = value;  // j is the thread's own channel
                terms[row][lane] = value * x[j * area] / s;  // dy_j * y_j / s_j
            }
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            int i = part.first + threadIdx.y + r * ROWS;
            if (part.inside && i < part.end) {
                int last = min(min(i + reach, high - 1), piece + CHANNELS - 1);
                for (int j = max(max(i - reach, low), piece); j <= last; j++) total[r] += terms[j - piece][lane];
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int i = part.first + threadIdx.y + r * ROWS;
        if (part.inside && i < part.end) dx[i * area] = share[r] - 2 * alpha * beta * total[r] * x[i * area];
    }
}
