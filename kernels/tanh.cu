// Hyperbolic tangent: y = tanh(x);  dx = dy (1 - y^2).  One thread, one element.  minigrad/ops/tanh.py.

extern "C" __global__ void tanh_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) y[i] = tanh(x[i]);
}

extern "C" __global__ void tanh_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                         REAL* __restrict__ dx, long long n) {
    long long i = global_thread();
    if (i < n) dx[i] = dy[i] * (REAL(1) - y[i] * y[i]);
}
