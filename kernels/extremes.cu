// The larger and the smaller of two, clipping, the absolute value, element by element.  minigrad/ops/extremes.py.
//
//     y = maximum(a, b)     da = dy where a > b, dy / 2 where a = b, else 0
//     y = minimum(a, b)     the same with a < b
//     y = clip(x)           dx = dy where low <= x <= high, else 0
//     y = abs(x)            dx = dy sign(x)
//
// a and b broadcast: the Layout says where each element lies in y (array 0), a (1) and b (2), or x (1).  dy lies as array
// 0 does.  `walk` of common.cuh says what one thread does.  db is da with a and b exchanged.  A number is NaN that is not
// itself: y is NaN where a or b is, and both get dy.

typedef Wrapping<T>::type Number;

extern "C" __global__ void maximum_forward(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                           const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a > b || a != a ? a : b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void minimum_forward(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                           const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return a < b || a != a ? a : b; }, in<1>(a), in<2>(b));
}

extern "C" __global__ void maximum_backward(T* __restrict__ da, const T* __restrict__ a, const T* __restrict__ b,
                                            const T* __restrict__ dy, const __grid_constant__ Layout layout,
                                            long long n) {
    walk(layout, n, da, [](T a, T b, T dy) { return a == b ? T(dy / 2) : a < b ? T(0) : dy; }, in<1>(a), in<2>(b),
         in<0>(dy));
}

extern "C" __global__ void minimum_backward(T* __restrict__ da, const T* __restrict__ a, const T* __restrict__ b,
                                            const T* __restrict__ dy, const __grid_constant__ Layout layout,
                                            long long n) {
    walk(layout, n, da, [](T a, T b, T dy) { return a == b ? T(dy / 2) : a > b ? T(0) : dy; }, in<1>(a), in<2>(b),
         in<0>(dy));
}

extern "C" __global__ void clip_forward(T* __restrict__ y, const T* __restrict__ x, T low, T high,
                                        const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [=](T x) { return x < low ? low : x > high ? high : x; }, in<1>(x));
}

extern "C" __global__ void clip_backward(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ dy, T low,
                                         T high, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, dx, [=](T x, T dy) { return low <= x && x <= high ? dy : T(0); }, in<1>(x), in<0>(dy));
}

// 0 - x also of -0.0, which becomes 0.0; integers wrap around.
extern "C" __global__ void abs_forward(T* __restrict__ y, const T* __restrict__ x,
                                       const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T x) { return x <= T(0) ? (T)((Number)0 - (Number)x) : x; }, in<1>(x));
}

// A product: where x or dy is NaN, so is dx.
extern "C" __global__ void abs_backward(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ dy,
                                        const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, dx, [](T x, T dy) { return (T)(dy * (x > 0 ? T(1) : x < 0 ? T(-1) : x)); }, in<1>(x), in<0>(dy));
}
