// Logistic sigmoid: y = 1 / (1 + e^-x) = e^min(x, 0) / (1 + e^-|x|);  dx = dy y (1 - y).  minigrad/ops/sigmoid.py.

__device__ __forceinline__ REAL sigmoid(REAL x) {
    REAL above = exp(x < 0 ? x : REAL(0));
    REAL below = REAL(1) + exp(-fabs(x));  // NaN where x is
    return above / below;
}

extern "C" __global__ void sigmoid_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return sigmoid(x); }, x);
}

extern "C" __global__ void sigmoid_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                            REAL* __restrict__ dx, long long n) {
    each(n, dx, [](REAL dy, REAL y) { return dy * (y * (REAL(1) - y)); }, dy, y);
}
