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
// channels before, and spread NaN and inf to windows that have none.  So an x is read once for each of the n windows it
// is in, all by threads of one block: the first time from memory, then from the L1 cache.
//
// Backward computes s again, from x that it needs anyway: an s kept by forward would be an array of x's size, written
// and read back.  Each term of the second sum costs a power s_j^beta.  They go through shared memory, so that a block
// computes each of them once, for all its windows.

// The launch bounds ask for 3 blocks at a time on a multiprocessor: more would leave a thread too few registers, and
// the compiler would spill some to memory.

#define PIXELS 32
#define CHANNELS 32
#define ROWS 8
#define OWN (CHANNELS / ROWS)  // channels of a thread

// The maps that a kernel is given.
struct Maps {
    long long pixels, area;  // N * H * W, and H * W
    int groups, channels;    // channels of one group
    int reach;               // n//2: how many channels a window has on either side
};

// Where a thread works.
struct Spot {
    bool inside;       // whether there is such a pixel
    long long offset;  // where the pixel's channel 0 lies
    int begin, end;    // the channels of the group
    int first;         // the first channel of the block; the thread's are first + threadIdx.y + r * ROWS
};

__device__ __forceinline__ Spot spot_of_thread(const Maps& maps) {
    int blocks_of_group = (maps.channels + CHANNELS - 1) / CHANNELS, blocks = maps.groups * blocks_of_group;
    int number = blockIdx.x % blocks, group = number / blocks_of_group;
    long long pixel = (long long)(blockIdx.x / blocks) * PIXELS + threadIdx.x, image = pixel / maps.area;
    Spot spot;
    spot.inside = pixel < maps.pixels;
    spot.offset = image * maps.area * maps.groups * maps.channels + pixel - image * maps.area;
    spot.begin = group * maps.channels;
    spot.end = spot.begin + maps.channels;
    spot.first = spot.begin + (number - group * blocks_of_group) * CHANNELS;
    return spot;
}

// s of channel i; x points to channel 0 of the pixel.
__device__ __forceinline__ REAL scale(const REAL* __restrict__ x, const Maps& maps, Spot spot, int i, REAL k,
                                      REAL alpha) {
    int last = min(i + maps.reach, spot.end - 1);
    REAL sum = 0;
    for (int j = max(i - maps.reach, spot.begin); j <= last; j++) {
        REAL x_j = x[j * maps.area];
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

extern "C" __global__ __launch_bounds__(PIXELS * ROWS, 3) void lrn_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, const __grid_constant__ Maps maps, REAL k, REAL alpha,
    REAL beta) {
    Spot spot = spot_of_thread(maps);
    if (!spot.inside) return;
    x += spot.offset;
    y += spot.offset;
    int stop = min(spot.first + CHANNELS, spot.end);
    for (int i = spot.first + threadIdx.y; i < stop; i += ROWS) {
        REAL s = scale(x, maps, spot, i, k, alpha);
        y[i * maps.area] = x[i * maps.area] / power(s, beta);
    }
}

extern "C" __global__ __launch_bounds__(PIXELS * ROWS, 3) void lrn_backward(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, REAL* __restrict__ dx, const __grid_constant__ Maps maps,
    REAL k, REAL alpha, REAL beta) {
    __shared__ REAL terms[CHANNELS][PIXELS];
    Spot spot = spot_of_thread(maps);
    x += spot.offset;
    dy += spot.offset;
    dx += spot.offset;
    int lane = threadIdx.x;
    // The block needs the terms of channels low to high - 1.  They pass through shared memory CHANNELS at a time, base
    // to base + CHANNELS - 1, so that a window of any width will do.
    int low = max(spot.first - maps.reach, spot.begin), high = min(spot.first + CHANNELS + maps.reach, spot.end);
    int base = spot.first - (spot.first - low + CHANNELS - 1) / CHANNELS * CHANNELS;
    REAL share[OWN] = {}, total[OWN] = {};  // dy_i * s_i^-beta, and the sum of the terms
    for (; base < high; base += CHANNELS) {
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            int row = threadIdx.y + r * ROWS, j = base + row;
            if (spot.inside && j >= low && j < high) {
                REAL s = scale(x, maps, spot, j, k, alpha);
                REAL value = dy[j * maps.area] / power(s, beta);
                if (base == spot.first) share[r] = value;  // j is the thread's own channel
                terms[row][lane] = value * x[j * maps.area] / s;  // dy_j * y_j / s_j
            }
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < OWN; r++) {
            int i = spot.first + threadIdx.y + r * ROWS;
            if (spot.inside && i < spot.end) {
                int last = min(min(i + maps.reach, high - 1), base + CHANNELS - 1);
                for (int j = max(max(i - maps.reach, low), base); j <= last; j++) total[r] += terms[j - base][lane];
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < OWN; r++) {
        int i = spot.first + threadIdx.y + r * ROWS;
        if (spot.inside && i < spot.end) dx[i * maps.area] = share[r] - 2 * alpha * beta * total[r] * x[i * maps.area];
    }
}
