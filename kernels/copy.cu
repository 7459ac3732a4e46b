// Moving elements: y = x, element by element, with strides, broadcasting and conversion; and filling.  FROM and TO:
// element types of x and y.  For assign and fill of minigrad/gpu/arrays.py, and so for the ops astype, concat, copy,
// pad and shape.

// Conversion by the rule of minigrad/base/casting.py.  C++ leaves it open what (unsigned char)-1.0f is, and cards take
// the nearest number that fits; so a float becomes an integer in two steps, each of them defined: without its fraction
// and modulo 2^64 it is a long long, and the last bits of that are the result.
template <class REAL_NUMBER>
__device__ __forceinline__ long long whole(REAL_NUMBER x) {
    const REAL_NUMBER half = (REAL_NUMBER)9223372036854775808.0;  // 2^63
    if (!(fabs(x) < half)) {
        x = fmod(x, 2 * half);  // exact, as are the two additions; NaN for infinities
        if (x != x) return 0;
        if (x >= half) x -= 2 * half;
        if (x < -half) x += 2 * half;
    }
    return (long long)x;
}

// An integer type: from an integer it takes the last bits.
template <class NUMBER>
struct Cast {
    static __device__ __forceinline__ NUMBER of(float x) { return (NUMBER)whole(x); }
    static __device__ __forceinline__ NUMBER of(double x) { return (NUMBER)whole(x); }
    template <class INTEGER>
    static __device__ __forceinline__ NUMBER of(INTEGER x) { return (NUMBER)x; }
};
// What has no such gaps: floats have infinity, and bools say "not 0".
template <class NUMBER>
struct PlainCast {
    template <class OTHER>
    static __device__ __forceinline__ NUMBER of(OTHER x) { return (NUMBER)x; }
};
template <> struct Cast<float> : PlainCast<float> {};
template <> struct Cast<double> : PlainCast<double> {};
template <> struct Cast<bool> : PlainCast<bool> {};

// The Layout is of y (array 0) and x (array 1); `walk` of common.cuh says what one thread does.
extern "C" __global__ void copy_strided(TO* __restrict__ y, const FROM* __restrict__ x,
                                        const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](FROM x) { return Cast<TO>::of(x); }, in<1>(x));
}

extern "C" __global__ void fill(TO* __restrict__ y, const __grid_constant__ Layout layout, long long n, TO value) {
    walk(layout, n, y, [=] { return value; });
}

// Where neighbours in x are no neighbours in y, as in a transposed matrix, the kernel above would either read or write
// with large steps, every element in a memory sector of its own.  Here a tile of x goes through shared memory, so that
// threads next to each other read neighbours, and write neighbours:
//
//     y[outer][row][column] = x[outer][column][row]       neighbours in y: columns; in x: rows
//
// y_step, x_step: from row to row in y, and from column to column in x.  One block moves one tile.  Block (32, 8).  The
// Layout is of the tiles: the place of a tile's first element in y (array 0) and x (1), its row (2) and its column (3).
#define TILE 32
#define STRIPE 8

extern "C" __global__ void copy_turned(TO* __restrict__ y, const FROM* __restrict__ x,
                                       const __grid_constant__ Layout tiles, long long rows, long long columns,
                                       long long y_step, long long x_step) {
    __shared__ FROM tile[TILE][TILE + 1];  // + 1: a column of it lies in different banks
    Offsets first = offsets_of(tiles, blockIdx.x);
    long long tall = rows - first.of[2], wide = columns - first.of[3];  // what is left of the rows and columns
    y += first.of[0];
    x += first.of[1];
#pragma unroll
    for (int k = 0; k < TILE; k += STRIPE) {
        int column = k + threadIdx.y, row = threadIdx.x;
        if (column < wide && row < tall) tile[column][row] = x[column * x_step + row];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE; k += STRIPE) {
        int row = k + threadIdx.y, column = threadIdx.x;
        if (row < tall && column < wide) y[row * y_step + column] = Cast<TO>::of(tile[column][row]);
    }
}
