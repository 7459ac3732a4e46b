// ReLU: y = max(x, 0);  dx = dy where y > 0, else 0.  NaN stays NaN.  minigrad/ops/relu.py.

extern "C" __global__ void relu_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) {
        REAL value = x[i];
        y[i] = value < 0 ? REAL(0) : value;  // so, and not by fmax, which makes NaN 0
    }
}

extern "C" __global__ void relu_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                         REAL* __restrict__ dx, long long n) {
    long long i = global_thread();
    if (i < n) {
        // A product: where dy is NaN, so is dx, also where y is 0.
        dx[i] = dy[i] * (y[i] > 0 ? REAL(1) : REAL(0));
    }
}
