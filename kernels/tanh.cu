// Hyperbolic tangent: y = tanh(x);  dx = dy (1 - y^2).  minigrad/ops/tanh.py.

extern "C" __global__ void tanh_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return tanh(x); }, x);
}

extern "C" __global__ void tanh_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                         REAL* __restrict__ dx, long long n) {
    each(n, dx, [](REAL dy, REAL y) { return dy * (REAL(1) - y * y); }, dy, y);
}
