// Gradients of division and powers, element by element; an operand that was repeated gets their sum (reduce.cu).
//
//     y = a / b     db = -dy y / b
//     y = a ^ b     da = dy b a^(b-1)     db = dy y ln(a)
//
// minigrad/ops/arithmetic.py.  a and b broadcast: the Layout says where each element lies in da or db (array 0), a (1)
// and b (2), or in b (1) alone.  dy and y lie as array 0 does.  `walk` of common.cuh says what one thread does.

__device__ __forceinline__ REAL raised(REAL a, REAL b) { return b == 2 ? a * a : pow(a, b); }  // as in arithmetic.cu

extern "C" __global__ void divide_backward_b(REAL* __restrict__ db, const REAL* __restrict__ dy,
                                             const REAL* __restrict__ y, const REAL* __restrict__ b,
                                             const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, db, [](REAL dy, REAL y, REAL b) { return -(dy / b * y); }, in<0>(dy), in<0>(y), in<1>(b));
}

// b a^(b-1) is 0 where b is 0, whatever a is: a^0 is always 1.
__device__ __forceinline__ REAL slope(REAL a, REAL b) { return b * raised(a, b == 0 ? b : b - 1); }

extern "C" __global__ void power_backward_a(REAL* __restrict__ da, const REAL* __restrict__ dy,
                                            const REAL* __restrict__ a, const REAL* __restrict__ b,
                                            const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, da, [](REAL dy, REAL a, REAL b) { return dy * slope(a, b); }, in<0>(dy), in<1>(a), in<2>(b));
}

// y ln(a) is 0 where a is 0 and b is not negative: 0^b is always 0 then, but for b = 0.
__device__ __forceinline__ REAL rise(REAL y, REAL a, REAL b) { return y * log(a == 0 && b >= 0 ? REAL(1) : a); }

extern "C" __global__ void power_backward_b(REAL* __restrict__ db, const REAL* __restrict__ dy,
                                            const REAL* __restrict__ y, const REAL* __restrict__ a,
                                            const REAL* __restrict__ b, const __grid_constant__ Layout layout,
                                            long long n) {
    walk(layout, n, db, [](REAL dy, REAL y, REAL a, REAL b) { return dy * rise(y, a, b); }, in<0>(dy), in<0>(y),
         in<1>(a), in<2>(b));
}
