// Comparisons, element by element: y = a == b, a != b, a < b, a <= b, a > b, a >= b.  NaN is unequal to everything, and
// neither less nor greater.  minigrad/ops/compare.py.
//
// a and b broadcast: the Layout says where each element lies in y (array 0), a (1) and b (2); `walk` of common.cuh says
// what one thread does.

extern "C" __global__ void equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                 const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a == b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void not_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                     const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a != b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void less(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a < b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void less_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                      const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a <= b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void greater(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                   const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a > b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void greater_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                         const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a >= b; }, in<1>(a), in<2>(b));
}
