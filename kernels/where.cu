// One of two, element by element: y = a where the condition is true, else b.  minigrad/ops/where.py.
//
//     da = dy where it is true, else 0          db = 0 where it is true, else dy
//
// All broadcast: the Layout says where each element lies in y (array 0), the condition (1), a (2) and b (3); backward,
// in da or db, as which dy lies, and in the condition.  `walk` of common.cuh says what one thread does.

extern "C" __global__ void where_forward(T* __restrict__ y, const bool* __restrict__ condition,
                                         const T* __restrict__ a, const T* __restrict__ b,
                                         const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](bool condition, T a, T b) { return condition ? a : b; }, in<1>(condition), in<2>(a),
         in<3>(b));
}

extern "C" __global__ void where_backward_a(T* __restrict__ da, const bool* __restrict__ condition,
                                            const T* __restrict__ dy, const __grid_constant__ Layout layout,
                                            long long n) {
    walk(layout, n, da, [](bool condition, T dy) { return condition ? dy : T(0); }, in<1>(condition), in<0>(dy));
}

extern "C" __global__ void where_backward_b(T* __restrict__ db, const bool* __restrict__ condition,
                                            const T* __restrict__ dy, const __grid_constant__ Layout layout,
                                            long long n) {
    walk(layout, n, db, [](bool condition, T dy) { return condition ? T(0) : dy; }, in<1>(condition), in<0>(dy));
}
