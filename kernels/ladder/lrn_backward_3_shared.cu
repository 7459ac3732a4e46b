// The ladder of local response normalisation's gradient, step 3: what windows share is in shared memory.  The formula
// is that of step 1.
//
// A block has 32 pixels x 32 channels, as in forward's step 2.  It computes each term dy_j * y_j / s_j that its windows
// need once: a power for each, (32 + 2 reach) / 32 powers for a number of dx, not n + 1.  For the terms it needs s of
// the same channels, so it brings x of 2 * reach channels before and after to shared memory.  One kernel, and no s in
// global memory: x, of which it is made, has to be read anyway.
//
// dy_j * s_j^-beta is on the way to the term, and is the first half of dx_j: it is put down as well.
//
// What it costs: shared memory for three arrays, two barriers, the limit MOST_REACH; and the channels that two blocks
// need are computed by both.
//
// What kernels/lrn.cu does instead: as in forward, a thread goes through the channels of its pixel, with two windows in
// its registers: of x, which gives s, and of the terms; it takes any window, by kernels like those of step 2 where one
// is too wide for registers; and it takes roots, not powers, where beta is 3/4.

#define PIXELS 32
#define CHANNELS 32
#define ROWS 8        // warps of a block
#define MOST_REACH 8  // windows of up to 17 channels

extern "C" __global__ __launch_bounds__(PIXELS * ROWS) void lrn_backward_shared(
    const REAL* __restrict__ x, const REAL* __restrict__ dy, REAL* __restrict__ dx, long long size, int channels,
    long long area, int reach, REAL k, REAL alpha, REAL beta) {
    __shared__ REAL maps[CHANNELS + 4 * MOST_REACH][PIXELS];    // x of channels first - 2 * reach, ...
    __shared__ REAL terms[CHANNELS + 2 * MOST_REACH][PIXELS];   // dy_j * y_j / s_j of channels first - reach, ...
    __shared__ REAL shares[CHANNELS + 2 * MOST_REACH][PIXELS];  // and their dy_j * s_j^-beta
    const int lane = threadIdx.x, first = blockIdx.y * CHANNELS;
    long long pixel = (long long)blockIdx.x * PIXELS + lane, n = pixel / area;  // counted through all images
    bool inside = pixel < size / channels;
    long long channel_0 = n * channels * area + pixel - n * area;  // where channel 0 of the pixel lies

    for (int r = threadIdx.y; r < CHANNELS + 4 * reach; r += ROWS) {
        int j = first - 2 * reach + r;
        maps[r][lane] = inside && j >= 0 && j < channels ? x[channel_0 + j * area] : REAL(0);
    }
    __syncthreads();

    for (int r = threadIdx.y; r < CHANNELS + 2 * reach; r += ROWS) {
        int j = first - reach + r;  // its window begins at maps[r]
        REAL sum = 0;
        for (int t = r; t <= r + 2 * reach; t++) sum += maps[t][lane] * maps[t][lane];
        REAL s = k + alpha * sum, dy_j = inside && j >= 0 && j < channels ? dy[channel_0 + j * area] : REAL(0);
        shares[r][lane] = dy_j * pow(s, -beta);
        terms[r][lane] = shares[r][lane] * maps[r + reach][lane] / s;
    }
    __syncthreads();

    if (!inside) return;
    for (int i = first + threadIdx.y; i < min(first + CHANNELS, channels); i += ROWS) {
        int begin = i - first;  // its window begins at terms[begin]
        REAL sum = 0;
        for (int r = begin; r <= begin + 2 * reach; r++) sum += terms[r][lane];
        dx[channel_0 + i * area] = shares[begin + reach][lane] - 2 * alpha * beta * maps[begin + 2 * reach][lane] * sum;
    }
}
