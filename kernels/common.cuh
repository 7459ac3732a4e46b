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
// Grids have a thread for every element, so kernels ask `if (i < n)`.  A loop, with i += global_threads(), would do the
// same, but more slowly: the compiler unrolls it by four, and divides first to find out how often that is possible.
//
// A division of 64-bit numbers costs several times one of 32-bit numbers.  The compiler puts a test before each: where
// both numbers have no more than 32 bits it divides those.  So kernels divide long longs and leave that to it.
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

// Shapes and strides, in elements, of up to three arrays that are walked together; passed by value.  An array that is
// repeated along an axis (broadcast) has stride 0 there.  minigrad/gpu/layout.py packs it, with as few axes as can be.
#define MAX_AXES 6
struct Layout {
    long long size[MAX_AXES];
    long long stride[3][MAX_AXES];
    long long axes;
};

// Where element i, counted in row-major order, lies in array number `which`.
__device__ __forceinline__ long long offset_of(const Layout& layout, int which, long long i) {
    long long offset = 0;
#pragma unroll 1  // there are one or two turns as a rule: unrolling by four would gain nothing
    for (int axis = (int)layout.axes - 1; axis > 0; axis--) {
        long long rest = i / layout.size[axis];
        offset += (i - rest * layout.size[axis]) * layout.stride[which][axis];
        i = rest;
    }
    return offset + i * layout.stride[which][0];
}

// Where it lies in each of the three: the divisions, which are slow, are done once.
struct Offsets {
    long long of[3];
};

__device__ __forceinline__ Offsets offsets_of(const Layout& layout, long long i) {
    Offsets at = {{0, 0, 0}};
#pragma unroll 1
    for (int axis = (int)layout.axes - 1; axis >= 0; axis--) {
        long long rest = axis > 0 ? i / layout.size[axis] : 0, index = i - rest * layout.size[axis];
#pragma unroll
        for (int which = 0; which < 3; which++) at.of[which] += index * layout.stride[which][axis];
        i = rest;
    }
    return at;
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
