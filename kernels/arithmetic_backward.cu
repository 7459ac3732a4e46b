// Gradients of division and powers, element by element; an operand that was repeated gets their sum (reduce.cu).
//
//     y = a / b     db = -dy y / b
//     y = a ^ b     da = dy b a^(b-1)     db = dy y ln(a)
//
// minigrad/ops/arithmetic.py.  One thread computes one element.  a and b broadcast: the Layout says where
// element i lies in a (array 0) and b (1), or in b alone.  The other arrays have the shape of dy and are contiguous.

__device__ __forceinline__ REAL raised(REAL a, REAL b) { return b == 2 ? a * a : pow(a, b); }  // as in arithmetic.cu

extern "C" __global__ void divide_backward_b(REAL* __restrict__ db, const REAL* __restrict__ dy,
                                             const REAL* __restrict__ y, const REAL* __restrict__ b, Layout layout,
                                             long long n) {
    long long i = global_thread();
    if (i < n)
        db[i] = -(dy[i] / b[offset_of(layout, 0, i)] * y[i]);
}

// b a^(b-1) is 0 where b is 0, whatever a is: a^0 is always 1.
extern "C" __global__ void power_backward_a(REAL* __restrict__ da, const REAL* __restrict__ dy,
                                            const REAL* __restrict__ a, const REAL* __restrict__ b, Layout layout,
                                            long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        REAL exponent = b[at.of[1]], one_less = exponent == 0 ? exponent : exponent - 1;
        da[i] = dy[i] * (exponent * raised(a[at.of[0]], one_less));
    }
}

// y ln(a) is 0 where a is 0 and b is not negative: 0^b is always 0 then, but for b = 0.
extern "C" __global__ void power_backward_b(REAL* __restrict__ db, const REAL* __restrict__ dy,
                                            const REAL* __restrict__ y, const REAL* __restrict__ a,
                                            const REAL* __restrict__ b, Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        REAL base = a[at.of[0]];
        bool y_is_0 = base == 0 && b[at.of[1]] >= 0;
        db[i] = dy[i] * (y[i] * log(y_is_0 ? REAL(1) : base));
    }
}
