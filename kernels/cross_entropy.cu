// Cross-entropy of the softmax.  minigrad/ops/cross_entropy.py.
//
//     p = softmax(x) along the classes
//     loss_i = -log p[i, t_i] = log(sum_c exp(s[i, c])) - s[i, t_i],   s = x - max(x)
//     dx[i, c] = dloss_i * (p[i, c] - [c = t_i])
//
// One block, one row of x (rows, classes); its threads have classes threadIdx.x, threadIdx.x + blockDim.x, ...
// Offsets have 64 bits: all rows together may have more than 2^31 elements.

extern "C" __global__ void cross_entropy_forward(const REAL* __restrict__ x, const long long* __restrict__ t,
                                                 REAL* __restrict__ p, REAL* __restrict__ loss, long long rows,
                                                 int classes) {
    __shared__ REAL warps[WARP];
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const REAL* x_row = x + row * classes;
        REAL* p_row = p + row * classes;

        REAL most = -INFINITY;  // fmax passes NaN over, but s is NaN then, and so is the total
        for (int c = threadIdx.x; c < classes; c += blockDim.x) most = fmax(most, x_row[c]);
        most = block_max(most, warps);

        REAL total = 0;
        for (int c = threadIdx.x; c < classes; c += blockDim.x) total += exp(x_row[c] - most);
        total = block_sum(total, warps);

        for (int c = threadIdx.x; c < classes; c += blockDim.x) p_row[c] = exp(x_row[c] - most) / total;
        if (threadIdx.x == 0) loss[row] = log(total) - (x_row[t[row]] - most);
    }
}

// y = (loss_0 + loss_1 + ...) / divisor, by one block, so that the order is always the same.
extern "C" __global__ void cross_entropy_total(const REAL* __restrict__ loss, REAL* __restrict__ y, long long rows,
                                               REAL divisor) {
    __shared__ REAL warps[WARP];
    REAL total = 0;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x) total += loss[row];
    total = block_sum(total, warps);
    if (threadIdx.x == 0) y[0] = total / divisor;  // no rows: 0 / 0 is NaN, as it should be
}

// dloss_i = dy[i * dy_step] / divisor: dy has one value a row (dy_step 1) or one in all (dy_step 0).
// Gradients smaller than `tiny`, the smallest normal number, become 0, as on the CPU.
extern "C" __global__ void cross_entropy_backward(const REAL* __restrict__ dy, const REAL* __restrict__ p,
                                                  const long long* __restrict__ t, REAL* __restrict__ dx,
                                                  long long rows, int classes, int dy_step, REAL divisor, REAL tiny) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        REAL dloss = dy[row * dy_step] / divisor;
        long long true_class = t[row];
        for (int c = threadIdx.x; c < classes; c += blockDim.x) {
            REAL gradient = (p[row * classes + c] - (c == true_class ? REAL(1) : REAL(0))) * dloss;
            dx[row * classes + c] = fabs(gradient) < tiny ? REAL(0) : gradient;
        }
    }
}
