// CUDA's math functions and intrinsics, overloaded for float and double as NVRTC overloads them: exp(float) is a float,
// and exp(int) is ambiguous here as it is there.
#pragma once

// Written out, for check mode sees only what is compiled with the kernel.
static inline void* memcpy(void* to, const void* from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char*)to)[i] = ((const char*)from)[i];
    return to;
}
static inline void* memset(void* to, int value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char*)to)[i] = (char)value;
    return to;
}

// ---------------------------------------------------------------- overloads

// name(float) and name##f(float) are `single`, name(double) is `twofold`.
#define CS_MATH_1(name, single, twofold)                             \
    static __forceinline__ float name##f(float x) { return single; } \
    static __forceinline__ float name(float x) { return single; }    \
    static __forceinline__ double name(double x) { return twofold; }

#define CS_MATH_2(name, single, twofold)                                       \
    static __forceinline__ float name##f(float x, float y) { return single; }  \
    static __forceinline__ float name(float x, float y) { return single; }     \
    static __forceinline__ double name(double x, double y) { return twofold; }

#define CS_BUILTIN_1(name) CS_MATH_1(name, __builtin_##name##f(x), __builtin_##name(x))
#define CS_BUILTIN_2(name) CS_MATH_2(name, __builtin_##name##f(x, y), __builtin_##name(x, y))

CS_BUILTIN_1(sqrt)
CS_BUILTIN_1(cbrt)
CS_BUILTIN_1(exp)
CS_BUILTIN_1(exp2)
CS_BUILTIN_1(exp10)
CS_BUILTIN_1(expm1)
CS_BUILTIN_1(log)
CS_BUILTIN_1(log2)
CS_BUILTIN_1(log10)
CS_BUILTIN_1(log1p)
CS_BUILTIN_1(sin)
CS_BUILTIN_1(cos)
CS_BUILTIN_1(tan)
CS_BUILTIN_1(asin)
CS_BUILTIN_1(acos)
CS_BUILTIN_1(atan)
CS_BUILTIN_1(sinh)
CS_BUILTIN_1(cosh)
CS_BUILTIN_1(tanh)
CS_BUILTIN_1(asinh)
CS_BUILTIN_1(acosh)
CS_BUILTIN_1(atanh)
CS_BUILTIN_1(erf)
CS_BUILTIN_1(erfc)
CS_BUILTIN_1(lgamma)
CS_BUILTIN_1(tgamma)
CS_BUILTIN_1(floor)
CS_BUILTIN_1(ceil)
CS_BUILTIN_1(round)
CS_BUILTIN_1(trunc)
CS_BUILTIN_1(rint)
CS_BUILTIN_1(nearbyint)
CS_BUILTIN_1(fabs)
CS_MATH_1(rsqrt, 1.0f / __builtin_sqrtf(x), 1.0 / __builtin_sqrt(x))
CS_BUILTIN_2(pow)
CS_BUILTIN_2(fmod)
CS_BUILTIN_2(hypot)
CS_BUILTIN_2(atan2)
CS_BUILTIN_2(fdim)
CS_BUILTIN_2(copysign)
// With a NaN and a number, the number.  Written out: g++ would call the C library for each of them.
CS_MATH_2(fmin, x < y || y != y ? x : y, x < y || y != y ? x : y)
CS_MATH_2(fmax, x > y || y != y ? x : y, x > y || y != y ? x : y)

static __forceinline__ float pow(float x, int y) { return powf(x, (float)y); }
static __forceinline__ double pow(double x, int y) { return pow(x, (double)y); }
static __forceinline__ float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static __forceinline__ float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static __forceinline__ double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
static __forceinline__ float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
static __forceinline__ double ldexp(double x, int e) { return __builtin_ldexp(x, e); }

static __forceinline__ float fdividef(float x, float y) { return x / y; }
static __forceinline__ long lrint(float x) { return __builtin_lrintf(x); }
static __forceinline__ long lrint(double x) { return __builtin_lrint(x); }
static __forceinline__ long lround(float x) { return __builtin_lroundf(x); }
static __forceinline__ long lround(double x) { return __builtin_lround(x); }
static __forceinline__ void sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
static __forceinline__ void sincos(double x, double* sine, double* cosine) { *sine = sin(x), *cosine = cos(x); }

#define CS_CLASSIFY(name)                                                      \
    static __forceinline__ bool name(float x) { return __builtin_##name(x); }  \
    static __forceinline__ bool name(double x) { return __builtin_##name(x); }
CS_CLASSIFY(isnan)
CS_CLASSIFY(isinf)
CS_CLASSIFY(isfinite)
CS_CLASSIFY(signbit)

// ---------------------------------------------------------------- abs, min, max

static __forceinline__ int abs(int x) { return x < 0 ? -x : x; }
static __forceinline__ long abs(long x) { return x < 0 ? -x : x; }
static __forceinline__ long long abs(long long x) { return x < 0 ? -x : x; }
static __forceinline__ float abs(float x) { return __builtin_fabsf(x); }
static __forceinline__ double abs(double x) { return __builtin_fabs(x); }

#define CS_MIN_MAX(A, B, T)                                                      \
    static __forceinline__ T min(A a, B b) { return (T)b < (T)a ? (T)b : (T)a; } \
    static __forceinline__ T max(A a, B b) { return (T)a < (T)b ? (T)b : (T)a; }
#define CS_MIN_MAX_MIXED(A, B, T) \
    CS_MIN_MAX(A, B, T)           \
    CS_MIN_MAX(B, A, T)
CS_MIN_MAX(int, int, int)
CS_MIN_MAX(unsigned, unsigned, unsigned)
CS_MIN_MAX_MIXED(int, unsigned, unsigned)
CS_MIN_MAX(long, long, long)
CS_MIN_MAX(unsigned long, unsigned long, unsigned long)
CS_MIN_MAX_MIXED(long, unsigned long, unsigned long)
CS_MIN_MAX(long long, long long, long long)
CS_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
CS_MIN_MAX_MIXED(long long, unsigned long long, unsigned long long)
// Of floating point numbers they are fmin and fmax.
#define CS_MIN_MAX_REAL(A, B, T)                                        \
    static __forceinline__ T min(A a, B b) { return fmin((T)a, (T)b); } \
    static __forceinline__ T max(A a, B b) { return fmax((T)a, (T)b); }
CS_MIN_MAX_REAL(float, float, float)
CS_MIN_MAX_REAL(double, double, double)
CS_MIN_MAX_REAL(float, double, double)
CS_MIN_MAX_REAL(double, float, double)

// ---------------------------------------------------------------- fast versions and rounding modes of float

static __forceinline__ float __expf(float x) { return expf(x); }
static __forceinline__ float __exp10f(float x) { return exp10f(x); }
static __forceinline__ float __logf(float x) { return logf(x); }
static __forceinline__ float __log2f(float x) { return log2f(x); }
static __forceinline__ float __log10f(float x) { return log10f(x); }
static __forceinline__ float __powf(float x, float y) { return exp2f(y * log2f(x)); }  // as the CUDA guide defines it
static __forceinline__ float __sinf(float x) { return sinf(x); }
static __forceinline__ float __cosf(float x) { return cosf(x); }
static __forceinline__ float __fdividef(float x, float y) { return x / y; }
static __forceinline__ float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
static __forceinline__ float __fsqrt_rn(float x) { return sqrtf(x); }
static __forceinline__ float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; }  // NaN gives 0

// Never merged into a multiply-add.
#define CS_NO_FMA __attribute__((noinline, optimize("fp-contract=off")))
static CS_NO_FMA float __fadd_rn(float x, float y) { return x + y; }
static CS_NO_FMA float __fsub_rn(float x, float y) { return x - y; }
static CS_NO_FMA float __fmul_rn(float x, float y) { return x * y; }
static __forceinline__ float __fdiv_rn(float x, float y) { return x / y; }
static __forceinline__ float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static CS_NO_FMA double __dadd_rn(double x, double y) { return x + y; }
static CS_NO_FMA double __dsub_rn(double x, double y) { return x - y; }
static CS_NO_FMA double __dmul_rn(double x, double y) { return x * y; }
static __forceinline__ double __ddiv_rn(double x, double y) { return x / y; }
static __forceinline__ double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

// Conversions round to nearest even (rn), down (rd), up (ru) or towards zero (rz), and saturate, as the hardware does.
#define CS_CONVERT(name, From, To, lowest, highest, rounded)                                                   \
    static __forceinline__ To name(From x) {                                                                   \
        double y = rounded;                                                                                    \
        return y != y ? (To)0 : y <= (double)lowest ? (To)lowest : y >= (double)highest ? (To)highest : (To)y; \
    }
#define CS_INT_LOW (-2147483647 - 1)
#define CS_INT_HIGH 2147483647
CS_CONVERT(__float2int_rn, float, int, CS_INT_LOW, CS_INT_HIGH, __builtin_rint(x))
CS_CONVERT(__float2int_rd, float, int, CS_INT_LOW, CS_INT_HIGH, __builtin_floor(x))
CS_CONVERT(__float2int_ru, float, int, CS_INT_LOW, CS_INT_HIGH, __builtin_ceil(x))
CS_CONVERT(__float2int_rz, float, int, CS_INT_LOW, CS_INT_HIGH, __builtin_trunc(x))
CS_CONVERT(__float2uint_rn, float, unsigned, 0u, 4294967295u, __builtin_rint(x))
CS_CONVERT(__float2uint_rz, float, unsigned, 0u, 4294967295u, __builtin_trunc(x))
CS_CONVERT(__double2int_rn, double, int, CS_INT_LOW, CS_INT_HIGH, __builtin_rint(x))
CS_CONVERT(__double2int_rz, double, int, CS_INT_LOW, CS_INT_HIGH, __builtin_trunc(x))
static __forceinline__ float __int2float_rn(int x) { return (float)x; }
static __forceinline__ float __uint2float_rn(unsigned x) { return (float)x; }
static __forceinline__ float __double2float_rn(double x) { return (float)x; }

// ---------------------------------------------------------------- integers and bits

static __forceinline__ int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
static __forceinline__ unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
static __forceinline__ long long __mul64hi(long long a, long long b) { return (long long)(((__int128)a * b) >> 64); }
static __forceinline__ unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static __forceinline__ int __mul24(int a, int b) { return a * b; }
static __forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
static __forceinline__ int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static __forceinline__ int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static __forceinline__ int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static __forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
static __forceinline__ int __ffsll(long long x) { return __builtin_ffsll(x); }
static __forceinline__ unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
static __forceinline__ unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
// The upper 32 bits of high:low shifted left, the lower 32 shifted right; shifts count modulo 32.
static __forceinline__ unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
static __forceinline__ unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}

// The same bits as another type.
template <class To, class From>
static __forceinline__ To cs_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "types of different sizes");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
static __forceinline__ float __int_as_float(int x) { return cs_bits<float>(x); }
static __forceinline__ int __float_as_int(float x) { return cs_bits<int>(x); }
static __forceinline__ float __uint_as_float(unsigned x) { return cs_bits<float>(x); }
static __forceinline__ unsigned __float_as_uint(float x) { return cs_bits<unsigned>(x); }
static __forceinline__ double __longlong_as_double(long long x) { return cs_bits<double>(x); }
static __forceinline__ long long __double_as_longlong(double x) { return cs_bits<long long>(x); }

// ---------------------------------------------------------------- loads

template <class T>
static __forceinline__ T __ldg(const T* address) {
    return *address;
}
template <class T>
static __forceinline__ T __ldcs(const T* address) {
    return *address;
}
template <class T>
static __forceinline__ void __stcs(T* address, T value) {
    *address = value;
}
