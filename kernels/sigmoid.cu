// Logistic sigmoid: y = 1 / (1 + e^-x) = e^min(x, 0) / (1 + e^-|x|);  dx = dy y (1 - y).
// One thread, one element.  minigrad/ops/sigmoid.py.

extern "C" __global__ void sigmoid_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) {
        REAL value = x[i];
        REAL above = exp(value < 0 ? value : REAL(0));
        REAL below = REAL(1) + exp(-fabs(value));  // NaN where x is
        y[i] = above / below;
    }
}

extern "C" __global__ void sigmoid_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                            REAL* __restrict__ dx, long long n) {
    long long i = global_thread();
    if (i < n) dx[i] = dy[i] * (y[i] * (REAL(1) - y[i]));
}
