// ReLU: y = max(x, 0);  dx = dy where y > 0, else 0.  NaN stays NaN.  minigrad/ops/relu.py.

extern "C" __global__ void relu_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return x < 0 ? REAL(0) : x; }, x);  // so, and not by fmax, which makes NaN 0
}

extern "C" __global__ void relu_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                         REAL* __restrict__ dx, long long n) {
    // A product: where dy is NaN, so is dx, also where y is 0.
    each(n, dx, [](REAL dy, REAL y) { return dy * (y > 0 ? REAL(1) : REAL(0)); }, dy, y);
}
