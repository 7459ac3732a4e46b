// The ladder of local response normalisation's gradient, step 1: the formula and nothing else.
//
//     dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j),  j in the window of i
//
// with s_j = k + alpha * sum of x^2 over the window of j, and y_j = x_j * s_j^-beta, as in forward.  Arrays and threads
// are those of forward's step 1: one thread computes one number of dx.
//
// The thread has neither s nor y, so it computes them anew, for each of the n channels in its window: n windows of n
// numbers each.
//
// What it costs: n * n + 3n + 2 reads, and n + 1 powers, where a power costs more than everything else here
// together.  And n threads compute the same s_j.  Step 2 keeps s.

// s of channel i; x points to it.
__device__ __forceinline__ REAL scale(const REAL* __restrict__ x, int i, int channels, long long area, int reach,
                                      REAL k, REAL alpha) {
    REAL sum = 0;
    for (int j = max(0, i - reach); j <= min(channels - 1, i + reach); j++) {
        REAL x_j = x[(j - i) * area];
        sum += x_j * x_j;
    }
    return k + alpha * sum;
}

extern "C" __global__ void lrn_backward_naive(const REAL* __restrict__ x, const REAL* __restrict__ dy,
                                              REAL* __restrict__ dx, long long size, int channels, long long area,
                                              int reach, REAL k, REAL alpha, REAL beta) {
    long long number = global_thread();
    if (number >= size) return;
    int i = number / area % channels;

    REAL sum = 0;
    for (int j = max(0, i - reach); j <= min(channels - 1, i + reach); j++) {
        long long other = number + (j - i) * area;
        REAL s_j = scale(x + other, j, channels, area, reach, k, alpha);
        REAL y_j = x[other] * pow(s_j, -beta);
        sum += dy[other] * y_j / s_j;
    }
    REAL s = scale(x + number, i, channels, area, reach, k, alpha);
    dx[number] = dy[number] * pow(s, -beta) - 2 * alpha * beta * x[number] * sum;
}
