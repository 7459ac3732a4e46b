// The ladder of local response normalisation's gradient, step 2: s is kept.  The formula is that of step 1.
//
// Two kernels: the first computes s once for every number, the second reads it wherever it needs it.  (Forward could
// keep its s instead of a kernel that makes it again: Caffe does so.)  The windows within windows are gone: 4n + 3
// reads, not n * n + 3n + 2.
//
// What it costs: an array of x's size that is written, and read n times; where forward keeps it, it also takes that
// memory until backward.  And still n + 1 powers for each number, of which n are also computed by other threads.
// Step 3 computes each once, for all the threads of a block.

extern "C" __global__ void lrn_scale(const REAL* __restrict__ x, REAL* __restrict__ s, long long size, int channels,
                                     long long area, int reach, REAL k, REAL alpha) {
    long long number = global_thread();
    if (number >= size) return;
    int i = number / area % channels;
    REAL sum = 0;
    for (int j = max(0, i - reach); j <= min(channels - 1, i + reach); j++) {
        REAL x_j = x[number + (j - i) * area];
        sum += x_j * x_j;
    }
    s[number] = k + alpha * sum;
}

extern "C" __global__ void lrn_backward_scale_kept(const REAL* __restrict__ x, const REAL* __restrict__ s,
                                                   const REAL* __restrict__ dy, REAL* __restrict__ dx, long long size,
                                                   int channels, long long area, int reach, REAL alpha, REAL beta) {
    long long number = global_thread();
    if (number >= size) return;
    int i = number / area % channels;

    REAL sum = 0;
    for (int j = max(0, i - reach); j <= min(channels - 1, i + reach); j++) {
        long long other = number + (j - i) * area;
        REAL s_j = s[other], y_j = x[other] * pow(s_j, -beta);
        sum += dy[other] * y_j / s_j;
    }
    dx[number] = dy[number] * pow(s[number], -beta) - 2 * alpha * beta * x[number] * sum;
}
