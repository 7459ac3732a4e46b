// What a kernel sees: CUDA's built-in names, in plain C++ for g++.  It is put before every kernel source.  No includes,
// so that a kernel builds in a moment and finds no name that NVRTC would not give it.
#pragma once
#include "interface.hpp"

#define __CUDACC_EMULATED__ 1
#define CUDASIM 1  // kernels/instructions.cuh then asks for what is emulated here, and not for PTX
#if defined(CUDASIM_CHECK) || defined(CUDASIM_DEBUG)
#define __global__
#define __restrict__  // a promise: second_run.py looks whether it is kept
#define __restrict
#else
#define __global__ inline __attribute__((always_inline))  // into the loop over the threads of a block: entry.hpp
#endif
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define CS_LAID_OUT(s) \
    static const CsLaidOut cs_laid_out_##s __attribute__((used)) = {&s, __alignof__(s), __COUNTER__};
#define __shared__ static  // one block runs at a time, so one copy is enough; the builder finds these arrays

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

// ---------------------------------------------------------------- vector types

#define CS_VECTOR(name, T, align2, align4)                                            \
    struct __align__(align2) name##2 { T x, y; };                                     \
    struct name##3 { T x, y, z; };                                                    \
    struct __align__(align4) name##4 { T x, y, z, w; };                               \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                 \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }         \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CS_VECTOR(char, signed char, 2, 4)
CS_VECTOR(uchar, unsigned char, 2, 4)
CS_VECTOR(short, short, 4, 8)
CS_VECTOR(ushort, unsigned short, 4, 8)
CS_VECTOR(int, int, 8, 16)
CS_VECTOR(uint, unsigned, 8, 16)
CS_VECTOR(longlong, long long, 16, 16)
CS_VECTOR(ulonglong, unsigned long long, 16, 16)
CS_VECTOR(float, float, 8, 16)
CS_VECTOR(double, double, 16, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};

// ---------------------------------------------------------------- coordinates

// Of the thread that is running.  `static`, and its address is taken nowhere: g++ then knows that no store of the
// kernel can change it, and keeps it in registers.  Whoever waits for other threads puts its own coordinates back
// afterwards.
struct CsCoordinates {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
static CsCoordinates cs_here __attribute__((section("cudasim_here")));
#define threadIdx (cs_here.thread)
#define blockIdx (cs_here.block)
#define blockDim (cs_here.block_size)
#define gridDim (cs_here.grid_size)
static const int warpSize = 32;

#define CS_UNCHECKED __attribute__((no_sanitize("thread", "undefined")))

static inline CS_UNCHECKED unsigned cs_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

// ---------------------------------------------------------------- the runtime: waiting.cpp, output.cpp, checks.cpp, ...

#pragma GCC visibility push(default)
extern "C" {
unsigned cs_barrier(unsigned site, int predicate);  // how many threads had a true predicate
unsigned long long cs_warp(int op, unsigned mask, unsigned long long value, unsigned source_lane);
unsigned cs_active_lanes();
void cs_yield();                // lets the other threads run before it comes back
void cs_fence(int whole_card);  // checks.cpp
void cs_bad_width(int width) __attribute__((noreturn));
unsigned cs_product(unsigned a, unsigned b);  // a * b, reported where it wraps around
void* cs_dynamic_shared();
void cs_note_atomic(const void* address, int bytes, const void* pc);
void cs_copy_async(void* shared, const void* global, int bytes, bool inside);  // copies.cpp
void cs_copy_async_commit();
void cs_copy_async_wait(unsigned newest);
int cs_printf(const char* format, ...) __attribute__((format(printf, 1, 2)));
void cs_assert_failed(const char* condition) __attribute__((noreturn));
}
#pragma GCC visibility pop

#define printf cs_printf
#define assert(condition) ((condition) ? (void)0 : cs_assert_failed(#condition))
#define __trap() cs_assert_failed("__trap()")

// ---------------------------------------------------------------- barriers

// `site` tells one barrier of the source from another: a return address would not, for g++ copies calls.
static __forceinline__ CS_UNCHECKED unsigned cs_syncthreads(unsigned site, int predicate) {
    uint3 me = threadIdx;
    unsigned count = cs_barrier(site, predicate);
    threadIdx = me;
    return count;
}
#define __syncthreads() ((void)cs_syncthreads(__COUNTER__, 0))
#define __syncthreads_count(predicate) ((int)cs_syncthreads(__COUNTER__, (predicate) != 0))
#define __syncthreads_or(predicate) ((int)(cs_syncthreads(__COUNTER__, (predicate) != 0) != 0))
#define __syncthreads_and(predicate) ((int)(cs_syncthreads(__COUNTER__, (predicate) == 0) == 0))

// Blocks and threads run one at a time, so every store is seen at once.
#ifdef CUDASIM_CHECK
#define __threadfence() cs_fence(1)
#define __threadfence_block() cs_fence(0)
#define __threadfence_system() cs_fence(1)
#else
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __threadfence_system() ((void)0)
#endif

// ---------------------------------------------------------------- warps

static __forceinline__ CS_UNCHECKED unsigned long long cs_exchange(int op, unsigned mask, unsigned long long value,
                                                                   unsigned source_lane) {
    uint3 me = threadIdx;
    unsigned long long result = cs_warp(op, mask, value, source_lane);
    threadIdx = me;
    return result;
}

static __forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) { cs_exchange(CS_SYNCWARP, mask, 0, 0); }
static __forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) {
    return (unsigned)cs_exchange(CS_BALLOT, mask, predicate != 0, 0);
}
static __forceinline__ int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static __forceinline__ int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
static __forceinline__ CS_UNCHECKED unsigned __activemask() {
    uint3 me = threadIdx;
    unsigned lanes = cs_active_lanes();
    threadIdx = me;
    return lanes;
}

template <class T>
static __forceinline__ CS_UNCHECKED T cs_shuffle(unsigned mask, T value, unsigned source_lane) {
    static_assert(sizeof(T) <= 8, "shuffles move values of at most 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = cs_exchange(CS_SHUFFLE, mask, bits, source_lane);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

// The 32 lanes are cut into segments of `width`, a power of two; a source outside the own one gives the own value back.
static __forceinline__ void cs_check_width(int width) {
    if (width < 1 || width > 32 || width & (width - 1)) cs_bad_width(width);
}
template <class T>
static __forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    cs_check_width(width);
    unsigned lane = cs_lane(), first = lane & ~(width - 1u);
    return cs_shuffle(mask, value, first + ((unsigned)source & (width - 1u)));
}
template <class T>
static __forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    cs_check_width(width);
    unsigned lane = cs_lane(), in_segment = lane & (width - 1u);
    return cs_shuffle(mask, value, in_segment >= distance ? lane - distance : lane);
}
template <class T>
static __forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    cs_check_width(width);
    unsigned lane = cs_lane(), in_segment = lane & (width - 1u);
    return cs_shuffle(mask, value, in_segment + distance < (unsigned)width ? lane + distance : lane);
}
// Lanes of an earlier segment may be read, of a later one not: as the hardware does it.
template <class T>
static __forceinline__ T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
    cs_check_width(width);
    unsigned lane = cs_lane(), source = lane ^ (unsigned)flip, last = lane | (width - 1u);
    return cs_shuffle(mask, value, source <= last ? source : lane);
}

// ---------------------------------------------------------------- kernels/instructions.cuh

// Half of the last place that stays is added, then the rest is cut off.
static __forceinline__ CS_UNCHECKED float cs_tf32(float x) {
    unsigned bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) < 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;  // neither infinite nor NaN
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

// The lanes hand over where their fragments lie; the last to arrive multiplies for all.
static __forceinline__ CS_UNCHECKED void cs_multiply_add_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
    CsFragments mine;
    for (int i = 0; i < 4; i++) mine.d[i] = d[i], mine.a[i] = a[i];
    for (int i = 0; i < 2; i++) mine.b[i] = b[i];
    cs_exchange(CS_MULTIPLY_ADD, 0xffffffffu, (unsigned long long)&mine, 0);
    for (int i = 0; i < 4; i++) d[i] = mine.d[i];
}

// ---------------------------------------------------------------- atomics

// Threads run one at a time: an ordinary read and write is atomic here.  The types are CUDA's.  Each returns the old
// value.
template <class T, class F>
static __attribute__((noinline)) CS_UNCHECKED T cs_atomic(T* address, F change) {
    cs_note_atomic(address, sizeof(T), __builtin_return_address(0));
    T old = *address;
    *address = change(old);
    return old;
}

#define CS_ATOMIC(name, T, result)                                                  \
    static __forceinline__ T name(T* address, T value) {                            \
        return cs_atomic(address, [=](T old) CS_UNCHECKED -> T { return result; }); \
    }
#define CS_ATOMIC_INTEGERS(name, result)        \
    CS_ATOMIC(name, int, result)                \
    CS_ATOMIC(name, unsigned, result)           \
    CS_ATOMIC(name, unsigned long long, result)

CS_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)value))  // wraps around
CS_ATOMIC(atomicAdd, unsigned, old + value)
CS_ATOMIC(atomicAdd, unsigned long long, old + value)
CS_ATOMIC(atomicAdd, float, old + value)
CS_ATOMIC(atomicAdd, double, old + value)
CS_ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)value))
CS_ATOMIC(atomicSub, unsigned, old - value)
// One that changes nothing may be an attempt to take a lock: then another thread must run, to give it back.
template <class T>
static __forceinline__ CS_UNCHECKED T cs_yield_unless(bool changed, T old) {
    if (changed) return old;
    uint3 me = threadIdx;
    cs_yield();
    threadIdx = me;
    return old;
}
#define CS_ATOMIC_EXCHANGE(T)                                                                           \
    static __forceinline__ T atomicExch(T* address, T value) {                                          \
        T old = cs_atomic(address, [=](T old) CS_UNCHECKED -> T { (void)old; return value; });          \
        return cs_yield_unless(old != value, old);                                                      \
    }
CS_ATOMIC_EXCHANGE(int)
CS_ATOMIC_EXCHANGE(unsigned)
CS_ATOMIC_EXCHANGE(unsigned long long)
CS_ATOMIC_EXCHANGE(float)
CS_ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
CS_ATOMIC(atomicMin, long long, old < value ? old : value)
CS_ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
CS_ATOMIC(atomicMax, long long, old > value ? old : value)
CS_ATOMIC_INTEGERS(atomicAnd, (old & value))
CS_ATOMIC_INTEGERS(atomicOr, old | value)
CS_ATOMIC_INTEGERS(atomicXor, old ^ value)
CS_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
CS_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)

#define CS_ATOMIC_CAS(T)                                                                                   \
    static __forceinline__ T atomicCAS(T* address, T expected, T value) {                                  \
        T old = cs_atomic(address, [=](T old) CS_UNCHECKED -> T { return old == expected ? value : old; }); \
        return cs_yield_unless(old == expected, old);                                                      \
    }
CS_ATOMIC_CAS(int)
CS_ATOMIC_CAS(unsigned)
CS_ATOMIC_CAS(unsigned short)
CS_ATOMIC_CAS(unsigned long long)

#include "cuda_math.hpp"
#include "entry.hpp"
