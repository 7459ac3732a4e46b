// Moving elements: y = x, element by element, with strides, broadcasting and conversion; and filling.  FROM and TO:
// element types of x and y.  For assign and fill of minigrad/gpu/arrays.py, and so for the ops astype, concat, copy,
// pad and shape.

// Conversion by the rule of minigrad/base/casting.py.  C++ leaves it open what (unsigned char)-1.0f is, and cards take the
// nearest number that fits; so a float becomes an integer in two steps, each of them defined: without its fraction and
// modulo 2^64 it is a long long, and the last bits of that are the result.
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

// One thread moves one element.  The Layout is of y (array 0) and x (array 1).
extern "C" __global__ void copy_strided(TO* __restrict__ y, const FROM* __restrict__ x, Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = Cast<TO>::of(x[at.of[1]]);
    }
}

// Where neighbours in x are no neighbours in y, as in a transposed matrix, the kernel above would either read or write
// with large steps, every element in a memory sector of its own.  Here a tile of x goes through shared memory, so that
// threads next to each other read neighbours, and write neighbours:
//
//     y[outer][row][column] = x[outer][column][row]       neighbours in y: columns; in x: rows
//
// y_step, x_step: from row to row in y, and from column to column in x.  One block moves one tile.  Block (32, 8).
#define TILE 32
#define STRIPE 8

extern "C" __global__ void copy_turned(TO* __restrict__ y, const FROM* __restrict__ x, Layout outer, long long rows,
                                       long long columns, long long y_step, long long x_step) {
    __shared__ FROM tile[TILE][TILE + 1];  // + 1: a column of it lies in different banks
    long long down = (rows + TILE - 1) / TILE, across = (columns + TILE - 1) / TILE;
    long long strip = blockIdx.x / across, number = strip / down;
    long long row = (strip - number * down) * TILE, column = (blockIdx.x - strip * across) * TILE;
    Offsets at = offsets_of(outer, number);
    for (int k = threadIdx.y; k < TILE; k += STRIPE)
        if (row + threadIdx.x < rows && column + k < columns)
            tile[k][threadIdx.x] = x[at.of[1] + (column + k) * x_step + row + threadIdx.x];
    __syncthreads();
    for (int k = threadIdx.y; k < TILE; k += STRIPE)
        if (row + k < rows && column + threadIdx.x < columns)
            y[at.of[0] + (row + k) * y_step + column + threadIdx.x] = Cast<TO>::of(tile[threadIdx.x][k]);
}

extern "C" __global__ void fill(TO* __restrict__ y, Layout layout, long long n, TO value) {
    long long i = global_thread();
    if (i < n) y[offset_of(layout, 0, i)] = value;
}
