// Exponential, logarithm and square root, element by element.  minigrad/ops/pointwise.py.
//
//     y = exp(x)     dx = dy y
//     y = log(x)     dx = dy / x
//     y = sqrt(x)    dx = dy / (2 y)
//
// One thread, one element.

extern "C" __global__ void exp_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) y[i] = exp(x[i]);
}

extern "C" __global__ void exp_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y, REAL* __restrict__ dx,
                                        long long n) {
    long long i = global_thread();
    if (i < n) dx[i] = dy[i] * y[i];
}

extern "C" __global__ void log_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) y[i] = log(x[i]);
}

extern "C" __global__ void log_backward(const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dx,
                                        long long n) {
    long long i = global_thread();
    if (i < n) dx[i] = dy[i] / x[i];
}

extern "C" __global__ void sqrt_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    long long i = global_thread();
    if (i < n) y[i] = sqrt(x[i]);
}

extern "C" __global__ void sqrt_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y, REAL* __restrict__ dx,
                                         long long n) {
    long long i = global_thread();
    if (i < n) dx[i] = dy[i] / (y[i] + y[i]);
}
