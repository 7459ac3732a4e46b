// What all kernels share; it is put before every kernel file.  REAL (float or double) and other element types come from
// -D options: minigrad/gpu.  Plain CUDA C++, for NVRTC, nvcc and the emulator alike.
#ifndef REAL
#define REAL float
#endif
#ifdef TYPE
typedef TYPE T;  // what launch calls T=...; a macro T would break the templates below, and NVRTC's own headers
#endif
#ifndef INFINITY
#define INFINITY (1.0f / 0.0f)  // NVRTC has no math.h
#endif
// A struct that a kernel takes as `const __grid_constant__ Sizes sizes` stays where the launch has put it, for all
// threads to read.  Without the word the compiler may copy all of it to registers, of every thread.
#ifndef __CUDACC__
#define __grid_constant__  // the emulator's compiler does not know it
#endif

// ---------------------------------------------------------------- one thread per element

// The number of this thread in the whole grid, and how many there are.  64 bits: a tensor may have 2^31 elements and
// more, and blockIdx.x * blockDim.x, which CUDA computes in 32 bits, would wrap around.
//
// Grids have a thread for every element (or every 16 bytes, see below), so kernels ask `if (i < n)`.  A loop, with i +=
// global_threads(), would do the same, but more slowly: the compiler unrolls it by four, and divides first to find out
// how often that is possible.
//
// A division of 64-bit numbers costs several times one of 32-bit numbers.  The compiler puts a test before each: where
// both numbers have no more than 32 bits it divides those.  That still is some 20 instructions, as much as the rest of
// a short kernel: where the host knows by what is divided, it prepares a Layout.
__device__ __forceinline__ long long global_thread() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ long long global_threads() { return (long long)gridDim.x * blockDim.x; }

// Where element i of maps (..., height, width) lies: the number of its map, and row and column there.
struct Place {
    long long map;
    int row, col;
};
__device__ __forceinline__ Place place_of(long long i, int height, int width) {
    long long map = i / ((long long)height * width);
    int pixel = (int)(i - map * height * width), row = pixel / width;
    return {map, row, pixel - row * width};
}

// ---------------------------------------------------------------- arrays with strides

// Shapes and strides, in elements, of up to four arrays that are walked together; passed by value.  Axis 0 is the
// innermost one, along which y's neighbours lie.  An array that is repeated along an axis (broadcast) has stride 0
// there.  minigrad/gpu/layout.py packs it, with as few axes as can be.
#define MAX_AXES 6
struct Layout {
    long long size[MAX_AXES];
    long long stride[4][MAX_AXES];
    unsigned magic[MAX_AXES], shift[MAX_AXES];  // i / size = (i * magic) >> (32 + shift) for all i below 2^31
    int axes;
    int small;  // whether there are fewer than 2^31 elements, and all places fit an int
    int lanes;  // how many neighbours along axis 0 a thread works on: see `walk`
};

// Where element i, counted in row-major order, lies in array number `which`: for what a block asks once.
__device__ __forceinline__ long long offset_of(const Layout& layout, int which, long long i) {
    long long offset = 0;
#pragma unroll 1  // there are one or two turns as a rule: unrolling by four would gain nothing
    for (int axis = 0; axis < layout.axes - 1; axis++) {
        long long rest = i / layout.size[axis];
        offset += (i - rest * layout.size[axis]) * layout.stride[which][axis];
        i = rest;
    }
    return offset + i * layout.stride[which][layout.axes - 1];
}

// Where it lies in each of the four; what a kernel does not ask for the compiler leaves out.
struct Offsets {
    long long of[4];
};

// The same for what each thread asks.  In a small layout, which is small for all threads, a division is a product and a
// shift; and with all axes written out, the compiler knows where each size and stride stands.
__device__ __forceinline__ Offsets offsets_of(const Layout& layout, long long i) {
    if (!layout.small) {  // as above; one loop for all four takes fewer registers
        Offsets at = {{0, 0, 0, 0}};
#pragma unroll 1
        for (int axis = 0; axis < layout.axes; axis++) {
            long long rest = axis < layout.axes - 1 ? i / layout.size[axis] : 0, index = i - rest * layout.size[axis];
#pragma unroll
            for (int which = 0; which < 4; which++) at.of[which] += index * layout.stride[which][axis];
            i = rest;
        }
        return at;
    }
    unsigned rest = (unsigned)i;
    int of[4] = {0, 0, 0, 0};
#pragma unroll
    for (int axis = 0; axis < MAX_AXES; axis++) {
        bool last = axis == MAX_AXES - 1 || axis == layout.axes - 1;
        unsigned quotient = last ? 0 : __umulhi(rest, layout.magic[axis]) >> layout.shift[axis];
        int index = (int)(rest - quotient * (unsigned)layout.size[axis]);
#pragma unroll
        for (int which = 0; which < 4; which++) of[which] += index * (int)layout.stride[which][axis];
        rest = quotient;
        if (last) break;
    }
    return {{of[0], of[1], of[2], of[3]}};
}

// ---------------------------------------------------------------- element by element, 16 bytes at a time

// 16 bytes are the most that a thread can load or store at once.  With one pack for each of its 2048 threads a
// multiprocessor has 32 KB under way, where 14 KB keep a memory busy that moves 3 TB/s for 132 of them and answers in
// 600 ns; and what a thread has to do besides, to find its place, it does once for several elements.
//
// The compiler may take a pack to pieces, and does so with stores where it cannot see that the place is a multiple of
// 16 bytes: tests/test_kernel_budget.py looks whether packs are whole.
template <class ELEMENT, int LANES>
struct alignas(LANES * sizeof(ELEMENT)) Pack {
    ELEMENT lane[LANES];
};

// How many elements of each of these types a thread takes: 16 bytes of the widest.
template <class FIRST, class... MORE>
__device__ constexpr int lanes_of() {
    int size = sizeof(FIRST);
    ((size = (int)sizeof(MORE) > size ? (int)sizeof(MORE) : size), ...);
    return 16 / size;
}

typedef Pack<REAL, lanes_of<REAL>()> Reals;

// The pack of rule(x, ...) for each lane of the packs x, ...
template <class Y, int LANES, class RULE, class... X>
__device__ __forceinline__ Pack<Y, LANES> by_lane(const RULE& rule, Pack<X, LANES>... x) {
    Pack<Y, LANES> y;
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) y.lane[lane] = rule(x.lane[lane]...);
    return y;
}

// y[i] = rule(x[i], ...) for every i below n, of arrays without gaps.  One thread does a pack (the host counts them:
// `pack_blocks`); or the same elements one by one, at the end of the arrays, and where one of them does not begin at a
// multiple of its pack.
template <class Y, class RULE, class... X>
__device__ __forceinline__ void each(long long n, Y* y, const RULE& rule, const X*... x) {
    constexpr int LANES = lanes_of<Y, X...>();
    long long i = global_thread() * LANES;
    bool aligned = (((unsigned long long)y % sizeof(Pack<Y, LANES>) == 0) && ... &&
                    ((unsigned long long)x % sizeof(Pack<X, LANES>) == 0));
    if (aligned && i + LANES <= n)
        *(Pack<Y, LANES>*)(y + i) = by_lane<Y, LANES>(rule, *(const Pack<X, LANES>*)(x + i)...);
    else
#pragma unroll 1
        for (int lane = 0; lane < LANES && i + lane < n; lane++) y[i + lane] = rule(x[i + lane]...);
}

// An input of `walk`: it lies as array number WHICH of the layout.
template <int WHICH, class ELEMENT>
struct Input {
    const ELEMENT* x;
    __device__ __forceinline__ ELEMENT one(const Offsets& at) const { return x[at.of[WHICH]]; }
    template <int LANES>
    __device__ __forceinline__ Pack<ELEMENT, LANES> pack(const Layout& layout, const Offsets& at) const {
        if (layout.stride[WHICH][0]) return *(const Pack<ELEMENT, LANES>*)(x + at.of[WHICH]);
        ELEMENT repeated = one(at);
        Pack<ELEMENT, LANES> pack;
#pragma unroll
        for (int lane = 0; lane < LANES; lane++) pack.lane[lane] = repeated;
        return pack;
    }
};
template <int WHICH, class ELEMENT>
__device__ __forceinline__ Input<WHICH, ELEMENT> in(const ELEMENT* x) {
    return {x};
}

// The same of arrays with strides: y = rule(x, ...) for all n elements of a layout, of which y is array 0.  An input is
// in<k>(x), where k is the array of the layout that x lies as.  The host has found out (`lanes`) whether threads may
// take packs: along axis 0 all arrays then have stride 1, or 0, which is one number for the whole pack.
template <class Y, class RULE, class... X>
__device__ __forceinline__ void walk(const Layout& layout, long long n, Y* y, const RULE& rule, X... x) {
    constexpr int LANES = lanes_of<Y, decltype(x.one(Offsets()))...>();
    long long i = global_thread() * layout.lanes, stop = i + layout.lanes < n ? i + layout.lanes : n;
    bool packed = stop - i == LANES;
#pragma unroll 1
    for (; i < stop; i++) {
        Offsets at = offsets_of(layout, i);
        if (packed) {
            *(Pack<Y, LANES>*)(y + at.of[0]) = by_lane<Y, LANES>(rule, x.template pack<LANES>(layout, at)...);
            return;
        }
        y[at.of[0]] = rule(x.one(at)...);
    }
}

// ---------------------------------------------------------------- integers

// The type to add, subtract and multiply elements of type ELEMENT in.  NumPy's integers wrap around, while C++ leaves
// the overflow of signed ones undefined: integers are computed modulo 2^64 and cut to size.  Bools come out as "not 0".
template <class ELEMENT>
struct Wrapping {
    typedef unsigned long long type;
};
template <>
struct Wrapping<float> {
    typedef float type;
};
template <>
struct Wrapping<double> {
    typedef double type;
};

// ---------------------------------------------------------------- sums and maxima

#define WARP 32
#define ALL_LANES 0xffffffffu

// The sum over the 32 threads of a warp, in every one of them.  All 32 must call it.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// The sum over all threads of a one-dimensional block of whole warps, in every one of them; always added in the same
// order.  `warps` is shared memory for one value per warp (32 are always enough), free again when the function returns.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* warps) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    value = warp_sum(value);
    if (lane == 0) warps[warp] = value;
    __syncthreads();
    value = lane < (int)(blockDim.x / WARP) ? warps[lane] : T(0);
    value = warp_sum(value);
    __syncthreads();
    return value;
}

// The largest value instead of the sum.  NaN is passed over.
template <class T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value = fmax(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

template <class T>
__device__ __forceinline__ T block_max(T value, T* warps) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    value = warp_max(value);
    if (lane == 0) warps[warp] = value;
    __syncthreads();
    value = lane < (int)(blockDim.x / WARP) ? warps[lane] : T(-INFINITY);
    value = warp_max(value);
    __syncthreads();
    return value;
}
