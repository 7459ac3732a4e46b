// The ladder of local response normalisation, step 1: the formula and nothing else.
//
//     s_i = k + alpha * sum of x_j^2,  j = max(0, i - reach) .. min(C - 1, i + reach)
//     y_i = x_i * s_i^-beta
//
// for the channels i of every pixel; reach is n//2.  x and y are (N, C, H, W), area is H * W: from one channel of a
// pixel to the next it is `area` numbers.  One thread computes one number of y.
//
// Threads side by side are pixels side by side of one channel, and for each j they read pixels side by side of another:
// whole sectors of memory.  (Threads side by side along the channels would each read from a sector of its own.)
//
// What it costs: each number of x is read by n threads, once for every window that it is in.  The window sums of two
// neighbouring channels differ in two terms only, but a running sum would carry the rounding of all channels before,
// and spread a NaN to windows that have none.  Step 2 lets threads share what they have read, not what they have
// summed.

extern "C" __global__ void lrn_naive(const REAL* __restrict__ x, REAL* __restrict__ y, long long size, int channels,
                                     long long area, int reach, REAL k, REAL alpha, REAL beta) {
    long long number = global_thread();
    if (number >= size) return;
    int i = number / area % channels;

    REAL sum = 0;
    for (int j = max(0, i - reach); j <= min(channels - 1, i + reach); j++) {
        REAL x_j = x[number + (j - i) * area];
        sum += x_j * x_j;
    }
    REAL s = k + alpha * sum;
    y[number] = x[number] * pow(s, -beta);
}
