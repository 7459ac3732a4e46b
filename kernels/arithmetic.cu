// Arithmetic, element by element: y = a + b, a - b, a * b, a / b, a ^ b, -a.  minigrad/ops/arithmetic.py; gradients
// that are not made of these are in arithmetic_backward.cu.
//
// a and b broadcast: the Layout says where each element lies in y (array 0), a (1) and b (2); `walk` of common.cuh says
// what one thread does.  y may be a or b (a += b), so that no pointer is __restrict__.

typedef Wrapping<T>::type Number;

extern "C" __global__ void add(T* y, const T* a, const T* b, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return (T)((Number)a + (Number)b); }, in<1>(a), in<2>(b));
}

extern "C" __global__ void subtract(T* y, const T* a, const T* b, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return (T)((Number)a - (Number)b); }, in<1>(a), in<2>(b));
}

extern "C" __global__ void multiply(T* y, const T* a, const T* b, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return (T)((Number)a * (Number)b); }, in<1>(a), in<2>(b));
}

// For floating-point numbers: the quotient of two integers is one, too.
extern "C" __global__ void divide(T* y, const T* a, const T* b, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return (T)((Number)a / (Number)b); }, in<1>(a), in<2>(b));
}

// x ^ 2 is by far the most frequent power, and a product costs a hundredth of pow.
__device__ __forceinline__ float raised(float a, float b) { return b == 2 ? a * a : pow(a, b); }
__device__ __forceinline__ double raised(double a, double b) { return b == 2 ? a * a : pow(a, b); }

// Modulo 2^64, and so right for every integer type; b is not negative.
__device__ __forceinline__ unsigned long long raised(unsigned long long a, unsigned long long b) {
    unsigned long long y = 1;
    for (; b; b >>= 1, a *= a)
        if (b & 1) y *= a;
    return y;
}

extern "C" __global__ void power(T* y, const T* a, const T* b, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a, T b) { return (T)raised((Number)a, (Number)b); }, in<1>(a), in<2>(b));
}

extern "C" __global__ void negative(T* y, const T* a, const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](T a) { return (T) - (Number)a; }, in<1>(a));
}
