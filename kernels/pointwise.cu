// Exponential, logarithm and square root, element by element.  minigrad/ops/pointwise.py.
//
//     y = exp(x)     dx = dy y
//     y = log(x)     dx = dy / x
//     y = sqrt(x)    dx = dy / (2 y)

extern "C" __global__ void exp_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return exp(x); }, x);
}

extern "C" __global__ void exp_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y, REAL* __restrict__ dx,
                                        long long n) {
    each(n, dx, [](REAL dy, REAL y) { return dy * y; }, dy, y);
}

extern "C" __global__ void log_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return log(x); }, x);
}

extern "C" __global__ void log_backward(const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dx,
                                        long long n) {
    each(n, dx, [](REAL dy, REAL x) { return dy / x; }, dy, x);
}

extern "C" __global__ void sqrt_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long n) {
    each(n, y, [](REAL x) { return sqrt(x); }, x);
}

extern "C" __global__ void sqrt_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y, REAL* __restrict__ dx,
                                         long long n) {
    each(n, dx, [](REAL dy, REAL y) { return dy / (y + y); }, dy, y);
}
