// The ladder of local response normalisation, step 2: windows in shared memory.  The formula is that of step 1.
//
// A block has 32 pixels x 32 channels.  It brings their x to shared memory, and that of `reach` channels before and
// after, with zeros where there are no more channels; then each thread finds its windows there.  At n = 5 a number of x
// is read 36 / 32 times, not 6 times.  A thread stays at its pixel and has every 8th channel: a warp has one
// channel of 32 pixels, which lie side by side in memory and in shared memory.
//
// What it costs: shared memory, a barrier that all threads wait at, and a limit on the windows, MOST_REACH.
//
// What kernels/lrn.cu does instead: a thread goes through the channels of its pixel, and the window waits in its
// registers: one number goes, one comes.  No shared memory, no barrier, and a number of x is read as often as here:
// once, and again for the windows of the next block of channels.  Every loop over a window is written out by the
// compiler, for n is known to it.  It takes roots, too, where beta is 3/4: they cost much less than a power.

#define PIXELS 32
#define CHANNELS 32
#define ROWS 8        // warps of a block
#define MOST_REACH 8  // windows of up to 17 channels

extern "C" __global__ __launch_bounds__(PIXELS * ROWS) void lrn_shared(
    const REAL* __restrict__ x, REAL* __restrict__ y, long long size, int channels, long long area, int reach, REAL k,
    REAL alpha, REAL beta) {
    __shared__ REAL maps[CHANNELS + 2 * MOST_REACH][PIXELS];  // channels first - reach, first - reach + 1, ...
    const int lane = threadIdx.x, first = blockIdx.y * CHANNELS;
    long long pixel = (long long)blockIdx.x * PIXELS + lane, n = pixel / area;  // counted through all images
    bool inside = pixel < size / channels;
    long long channel_0 = n * channels * area + pixel - n * area;  // where channel 0 of the pixel lies

    for (int r = threadIdx.y; r < CHANNELS + 2 * reach; r += ROWS) {
        int j = first - reach + r;
        maps[r][lane] = inside && j >= 0 && j < channels ? x[channel_0 + j * area] : REAL(0);
    }
    __syncthreads();

    if (!inside) return;
    for (int i = first + threadIdx.y; i < min(first + CHANNELS, channels); i += ROWS) {
        int begin = i - first;  // channel i - reach lies here, channel i at begin + reach
        REAL sum = 0;
        for (int r = begin; r <= begin + 2 * reach; r++) sum += maps[r][lane] * maps[r][lane];
        REAL s = k + alpha * sum;
        y[channel_0 + i * area] = maps[begin + reach][lane] * pow(s, -beta);
    }
}
