// What files of others may use beyond our own kernels: what nvcc and its headers give, where NVRTC alone gives less.
// It is put between cuda.hpp and a kernel of such a file; our own kernels never see it.
#pragma once
#include <float.h>
#include <limits.h>
#include <stdint.h>

#include <initializer_list>
#include <limits>
#include <type_traits>
#include <utility>

// g++ decides: nvcc takes these together with `inline`, and for functions that call themselves.
#undef __forceinline__
#define __forceinline__
#define __inline_hint__
#define __managed__
#define __grid_constant__
#define __nv_pure__
#define __cluster_dims__(...)
#define __maxnreg__(...)
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __builtin_assume(condition) ((void)0)
#define __assume(condition) ((void)0)
#define __nv_associate_access_property(pointer, property) (pointer)

// Memory that the host reaches by name: it may change at any time, so g++ must not take it for a constant.
#define CS_VARIABLE __attribute__((used))
#define CS_EXPORT __attribute__((visibility("default")))
struct CsVariable {
    const char* name;
    void* address;
    cs_u64 bytes;
    cs_u32 constant;
};

// ---------------------------------------------------------------- constants: math.h, math_constants.h, stdlib.h

#ifndef NULL
#define NULL 0
#endif
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VAL __builtin_huge_val()
#define HUGE_VALF __builtin_huge_valf()
#define M_E 2.7182818284590452354
#define M_LOG2E 1.4426950408889634074
#define M_LOG10E 0.43429448190325182765
#define M_LN2 0.69314718055994530942
#define M_LN10 2.30258509299404568402
#define M_PI 3.14159265358979323846
#define M_PI_2 1.57079632679489661923
#define M_PI_4 0.78539816339744830962
#define M_1_PI 0.31830988618379067154
#define M_2_PI 0.63661977236758134308
#define M_2_SQRTPI 1.12837916709551257390
#define M_SQRT2 1.41421356237309504880
#define M_SQRT1_2 0.70710678118654752440
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F cs_bits<float>(0x7fffffffu)
#define CUDART_MIN_DENORM_F cs_bits<float>(1u)
#define CUDART_MAX_NORMAL_F FLT_MAX
#define CUDART_NEG_ZERO_F (-0.0f)
#define CUDART_ZERO_F 0.0f
#define CUDART_ONE_F 1.0f
#define CUDART_SQRT_HALF_F 0.707106781f
#define CUDART_SQRT_TWO_F 1.414213562f
#define CUDART_THIRD_F 0.333333333f
#define CUDART_PIO4_F 0.785398163f
#define CUDART_PIO2_F 1.570796327f
#define CUDART_PI_F 3.141592654f
#define CUDART_2_OVER_PI_F 0.636619772f
#define CUDART_L2E_F 1.442695041f
#define CUDART_LN2_F 0.693147181f
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI 3.1415926535897931e+0
#define CUDART_PIO2 1.5707963267948966e+0
#define CUDART_SQRT_TWO 1.4142135623730951e+0
#define RAND_MAX 2147483647

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned long ulong;
typedef unsigned long long cudaTextureObject_t;
typedef unsigned long long cudaSurfaceObject_t;
struct char1 { signed char x; };
struct uchar1 { unsigned char x; };
struct short1 { short x; };
struct ushort1 { unsigned short x; };
struct int1 { int x; };
struct uint1 { unsigned x; };
struct longlong1 { long long x; };
struct ulonglong1 { unsigned long long x; };
struct float1 { float x; };
struct double1 { double x; };
static inline char1 make_char1(signed char x) { return {x}; }
static inline uchar1 make_uchar1(unsigned char x) { return {x}; }
static inline short1 make_short1(short x) { return {x}; }
static inline ushort1 make_ushort1(unsigned short x) { return {x}; }
static inline int1 make_int1(int x) { return {x}; }
static inline uint1 make_uint1(unsigned x) { return {x}; }
static inline float1 make_float1(float x) { return {x}; }
static inline double1 make_double1(double x) { return {x}; }
CS_VECTOR(long, long, 16, 16)
CS_VECTOR(ulong, unsigned long, 16, 16)

// ---------------------------------------------------------------- math

// nvcc has the host's <cmath> as well: of integers the functions are double, of mixed types the larger one.
template <class A, class... B>
using CsReal = std::conditional_t<std::is_integral_v<A>, double, A>;
template <class A, class B>
using CsCommon = decltype(CsReal<A>() + CsReal<B>());
template <class A>
concept CsInteger = std::is_integral_v<A>;
template <class A, class B>
concept CsMixed = std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !(std::is_same_v<A, B> && !std::is_integral_v<A>);

#define CS_INTEGER_1(name)                        \
    template <CsInteger T>                        \
    static __attribute__((always_inline)) inline double name(T x) { \
        return name((double)x);                   \
    }
CS_INTEGER_1(sqrt) CS_INTEGER_1(cbrt) CS_INTEGER_1(exp) CS_INTEGER_1(exp2) CS_INTEGER_1(exp10) CS_INTEGER_1(expm1)
CS_INTEGER_1(log) CS_INTEGER_1(log2) CS_INTEGER_1(log10) CS_INTEGER_1(log1p) CS_INTEGER_1(sin) CS_INTEGER_1(cos)
CS_INTEGER_1(tan) CS_INTEGER_1(asin) CS_INTEGER_1(acos) CS_INTEGER_1(atan) CS_INTEGER_1(sinh) CS_INTEGER_1(cosh)
CS_INTEGER_1(tanh) CS_INTEGER_1(floor) CS_INTEGER_1(ceil) CS_INTEGER_1(round) CS_INTEGER_1(trunc) CS_INTEGER_1(rint)
CS_INTEGER_1(fabs) CS_INTEGER_1(rsqrt) CS_INTEGER_1(erf) CS_INTEGER_1(lgamma) CS_INTEGER_1(tgamma)

#define CS_MIXED_2(name)                                                                        \
    template <class A, class B>                                                                 \
        requires CsMixed<A, B>                                                                  \
    static __attribute__((always_inline)) inline CsCommon<A, B> name(A a, B b) {                \
        return name((CsCommon<A, B>)a, (CsCommon<A, B>)b);                                      \
    }
CS_MIXED_2(pow) CS_MIXED_2(fmod) CS_MIXED_2(hypot) CS_MIXED_2(atan2) CS_MIXED_2(fdim) CS_MIXED_2(copysign)
CS_MIXED_2(fmin) CS_MIXED_2(fmax)

template <class A, class B>
    requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>)
static __attribute__((always_inline)) inline auto min(A a, B b) {
    using T = decltype(a + b);
    return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B>
    requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B> && !std::is_same_v<A, B>)
static __attribute__((always_inline)) inline auto max(A a, B b) {
    using T = decltype(a + b);
    return (T)a < (T)b ? (T)b : (T)a;
}
static inline short min(short a, short b) { return b < a ? b : a; }
static inline short max(short a, short b) { return a < b ? b : a; }
static inline unsigned char min(unsigned char a, unsigned char b) { return b < a ? b : a; }
static inline unsigned char max(unsigned char a, unsigned char b) { return a < b ? b : a; }
static inline unsigned umin(unsigned a, unsigned b) { return b < a ? b : a; }
static inline unsigned umax(unsigned a, unsigned b) { return a < b ? b : a; }
static inline long long llmin(long long a, long long b) { return b < a ? b : a; }
static inline long long llmax(long long a, long long b) { return a < b ? b : a; }
static inline long labs(long x) { return x < 0 ? -x : x; }
static inline long long llabs(long long x) { return x < 0 ? -x : x; }

static inline float rhypotf(float x, float y) { return 1.0f / hypotf(x, y); }
static inline double rhypot(double x, double y) { return 1.0 / hypot(x, y); }
static inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
static inline double rcbrt(double x) { return 1.0 / cbrt(x); }
static inline float norm3df(float x, float y, float z) { return sqrtf(x * x + y * y + z * z); }
static inline double norm3d(double x, double y, double z) { return sqrt(x * x + y * y + z * z); }
static inline float rnorm3df(float x, float y, float z) { return 1.0f / norm3df(x, y, z); }
static inline float norm4df(float x, float y, float z, float w) { return sqrtf(x * x + y * y + z * z + w * w); }
static inline float erfcxf(float x) { return expf(x * x) * erfcf(x); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
static inline float sinpif(float x) { return (float)sin(M_PI * fmod((double)x, 2.0)); }
static inline float cospif(float x) { return (float)cos(M_PI * fmod((double)x, 2.0)); }
static inline double sinpi(double x) { return sin(M_PI * fmod(x, 2.0)); }
static inline double cospi(double x) { return cos(M_PI * fmod(x, 2.0)); }
static inline void sincospif(float x, float* sine, float* cosine) { *sine = sinpif(x), *cosine = cospif(x); }
static inline void sincos(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
static inline float ldexpf(float x, int e) { return __builtin_ldexpf(x, e); }
static inline float scalbnf(float x, int e) { return __builtin_ldexpf(x, e); }
static inline double scalbn(double x, int e) { return __builtin_ldexp(x, e); }
static inline float frexpf(float x, int* e) { return __builtin_frexpf(x, e); }
static inline double frexp(double x, int* e) { return __builtin_frexp(x, e); }
static inline float modff(float x, float* whole) { return __builtin_modff(x, whole); }
static inline double modf(double x, double* whole) { return __builtin_modf(x, whole); }
static inline float remainderf(float x, float y) { return __builtin_remainderf(x, y); }
static inline double remainder(double x, double y) { return __builtin_remainder(x, y); }
static inline float nextafterf(float x, float y) { return __builtin_nextafterf(x, y); }
static inline double nextafter(double x, double y) { return __builtin_nextafter(x, y); }
static inline float logbf(float x) { return __builtin_logbf(x); }
static inline int ilogbf(float x) { return __builtin_ilogbf(x); }
static inline int ilogb(double x) { return __builtin_ilogb(x); }
static inline long lrintf(float x) { return __builtin_lrintf(x); }
static inline long lroundf(float x) { return __builtin_lroundf(x); }
static inline long long llrintf(float x) { return __builtin_llrintf(x); }
static inline long long llrint(double x) { return __builtin_llrint(x); }
static inline long long llroundf(float x) { return __builtin_llroundf(x); }
static inline long long llround(double x) { return __builtin_llround(x); }
static inline float nanf(const char*) { return NAN; }
static inline double nan(const char*) { return __builtin_nan(""); }
static inline float j0f(float x) { return __builtin_j0f(x); }
static inline float j1f(float x) { return __builtin_j1f(x); }
template <CsInteger T>
static inline bool isnan(T) { return false; }
template <CsInteger T>
static inline bool isinf(T) { return false; }
template <CsInteger T>
static inline bool isfinite(T) { return true; }

// ---------------------------------------------------------------- fast versions, rounding modes

static inline float __tanf(float x) { return tanf(x); }
static inline float __tanhf(float x) { return tanhf(x); }
static inline void __sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline double __drcp_rn(double x) { return 1.0 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }

// The other modes: the exact result's side, from a double that holds more bits than a float's sum or product needs; what
// the double cannot hold is seen by its error.
enum CsRounding { CS_DOWN, CS_UP, CS_ZERO };
// `x` + error is the exact value; the error is smaller than x's last place.
static CS_NO_FMA float cs_directed(double x, double error, CsRounding mode) {
    float nearest = (float)x;
    double off = (double)nearest - x;  // exact
    bool above = off > 0 || (off == 0 && error < 0), below = off < 0 || (off == 0 && error > 0);
    bool down = mode == CS_DOWN || (mode == CS_ZERO && (x > 0 || (x == 0 && error > 0)));
    if (down && above) return __builtin_nextafterf(nearest, -__builtin_inff());
    if (!down && below) return __builtin_nextafterf(nearest, __builtin_inff());
    return nearest;
}
static CS_NO_FMA double cs_sum_error(double a, double b, double sum) {
    double other = sum - a;
    return (a - (sum - other)) + (b - other);
}
static CS_NO_FMA float cs_add_directed(float a, float b, CsRounding mode) {
    double sum = (double)a + (double)b;
    if (sum == 0 && (a != 0 || mode == CS_DOWN) && (signbit(a) != signbit(b))) return mode == CS_DOWN ? -0.0f : 0.0f;
    if (isinf(sum) || isnan(sum)) return (float)sum;
    return cs_directed(sum, cs_sum_error(a, b, sum), mode);
}
static CS_NO_FMA float cs_mul_directed(float a, float b, CsRounding mode) {
    double product = (double)a * (double)b;  // exact
    if (product == 0 || isinf(product) || isnan(product)) return (float)product;
    return cs_directed(product, 0, mode);
}
static CS_NO_FMA float cs_fma_directed(float a, float b, float c, CsRounding mode) {
    double product = (double)a * (double)b, sum = product + (double)c;
    if (sum == 0 || isinf(sum) || isnan(sum)) return (float)sum;
    return cs_directed(sum, cs_sum_error(product, c, sum), mode);
}
static CS_NO_FMA float cs_div_directed(float a, float b, CsRounding mode) {
    double quotient = (double)a / (double)b;
    if (quotient == 0 || isinf(quotient) || isnan(quotient)) return (float)quotient;
    double rest = __builtin_fma(-quotient, (double)b, (double)a);
    return cs_directed(quotient, b < 0 ? -rest : rest, mode);
}
static CS_NO_FMA float cs_sqrt_directed(float a, CsRounding mode) {
    double root = __builtin_sqrt((double)a);
    if (root == 0 || isinf(root) || isnan(root)) return (float)root;
    return cs_directed(root, __builtin_fma(-root, root, (double)a), mode);
}
#define CS_DIRECTED(suffix, mode)                                                                                 \
    static inline float __fadd_##suffix(float x, float y) { return cs_add_directed(x, y, mode); }                 \
    static inline float __fsub_##suffix(float x, float y) { return cs_add_directed(x, -y, mode); }                \
    static inline float __fmul_##suffix(float x, float y) { return cs_mul_directed(x, y, mode); }                 \
    static inline float __fmaf_##suffix(float x, float y, float z) { return cs_fma_directed(x, y, z, mode); }     \
    static inline float __fdiv_##suffix(float x, float y) { return cs_div_directed(x, y, mode); }                 \
    static inline float __frcp_##suffix(float x) { return cs_div_directed(1.0f, x, mode); }                       \
    static inline float __fsqrt_##suffix(float x) { return cs_sqrt_directed(x, mode); }
CS_DIRECTED(rd, CS_DOWN)
CS_DIRECTED(ru, CS_UP)
CS_DIRECTED(rz, CS_ZERO)

CS_CONVERT(__float2uint_rd, float, unsigned, 0u, 4294967295u, __builtin_floor(x))
CS_CONVERT(__float2uint_ru, float, unsigned, 0u, 4294967295u, __builtin_ceil(x))
CS_CONVERT(__double2int_rd, double, int, CS_INT_LOW, CS_INT_HIGH, __builtin_floor(x))
CS_CONVERT(__double2int_ru, double, int, CS_INT_LOW, CS_INT_HIGH, __builtin_ceil(x))
CS_CONVERT(__double2uint_rn, double, unsigned, 0u, 4294967295u, __builtin_rint(x))
CS_CONVERT(__double2uint_rz, double, unsigned, 0u, 4294967295u, __builtin_trunc(x))
CS_CONVERT(__double2uint_rd, double, unsigned, 0u, 4294967295u, __builtin_floor(x))
CS_CONVERT(__double2uint_ru, double, unsigned, 0u, 4294967295u, __builtin_ceil(x))
#define CS_LONG_LOW (-9223372036854775807ll - 1)
#define CS_LONG_HIGH 9223372036854775807ll
#define CS_CONVERT_LONG(from, From)                                                                               \
    CS_CONVERT(__##from##2ll_rn, From, long long, CS_LONG_LOW, CS_LONG_HIGH, __builtin_rint(x))                   \
    CS_CONVERT(__##from##2ll_rz, From, long long, CS_LONG_LOW, CS_LONG_HIGH, __builtin_trunc(x))                  \
    CS_CONVERT(__##from##2ll_rd, From, long long, CS_LONG_LOW, CS_LONG_HIGH, __builtin_floor(x))                  \
    CS_CONVERT(__##from##2ll_ru, From, long long, CS_LONG_LOW, CS_LONG_HIGH, __builtin_ceil(x))                   \
    CS_CONVERT(__##from##2ull_rn, From, unsigned long long, 0ull, ~0ull, __builtin_rint(x))                       \
    CS_CONVERT(__##from##2ull_rz, From, unsigned long long, 0ull, ~0ull, __builtin_trunc(x))
CS_CONVERT_LONG(float, float)
CS_CONVERT_LONG(double, double)
#define CS_TO_FLOAT(name, From)                                                                     \
    static CS_NO_FMA float __##name##2float_rz(From x) {                                            \
        float y = (float)x;                                                                         \
        __int128 rest = (__int128)y - (__int128)x;                                                  \
        return (x > 0 && rest > 0) || (x < 0 && rest < 0) ? __builtin_nextafterf(y, 0.0f) : y;      \
    }                                                                                               \
    static CS_NO_FMA float __##name##2float_rd(From x) {                                            \
        float y = (float)x;                                                                         \
        return (__int128)y > (__int128)x ? __builtin_nextafterf(y, -__builtin_inff()) : y;          \
    }                                                                                               \
    static CS_NO_FMA float __##name##2float_ru(From x) {                                            \
        float y = (float)x;                                                                         \
        return (__int128)y < (__int128)x ? __builtin_nextafterf(y, __builtin_inff()) : y;           \
    }
CS_TO_FLOAT(int, int)
CS_TO_FLOAT(uint, unsigned)
CS_TO_FLOAT(ll, long long)
CS_TO_FLOAT(ull, unsigned long long)
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline double __ull2double_rn(unsigned long long x) { return (double)x; }
static inline float __double2float_rz(double x) { return isinf(x) || isnan(x) ? (float)x : cs_directed(x, 0, CS_ZERO); }
static inline float __double2float_rd(double x) { return isinf(x) || isnan(x) ? (float)x : cs_directed(x, 0, CS_DOWN); }
static inline float __double2float_ru(double x) { return isinf(x) || isnan(x) ? (float)x : cs_directed(x, 0, CS_UP); }
static inline int __double2hiint(double x) { return (int)(cs_bits<unsigned long long>(x) >> 32); }
static inline int __double2loint(double x) { return (int)cs_bits<unsigned long long>(x); }
static inline double __hiloint2double(int high, int low) {
    return cs_bits<double>((unsigned long long)(unsigned)high << 32 | (unsigned)low);
}

// ---------------------------------------------------------------- integers and bits

// The low 24 bits of each factor, and the low 32 of the product.
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
static inline int cs_mul24(int a, int b) {
    long long x = (int)((unsigned)a << 8) >> 8, y = (int)((unsigned)b << 8) >> 8;
    return (int)(unsigned)(x * y);
}
#define __mul24 cs_mul24
#define mul24 cs_mul24
#define umul24 __umul24
#define mulhi __mulhi
#define umulhi __umulhi
static inline int float_as_int(float x) { return __float_as_int(x); }
static inline float int_as_float(int x) { return __int_as_float(x); }
static inline unsigned __sad(int a, int b, unsigned c) { return (unsigned)(a < b ? (long long)b - a : (long long)a - b) + c; }
static inline unsigned __usad(unsigned a, unsigned b, unsigned c) { return (a < b ? b - a : a - b) + c; }
static inline int __hadd(int a, int b) { return (int)(((long long)a + b) >> 1); }
static inline int __rhadd(int a, int b) { return (int)(((long long)a + b + 1) >> 1); }
static inline unsigned __uhadd(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a + b) >> 1); }
static inline unsigned __urhadd(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a + b + 1) >> 1); }
// Of each number 0..3 of the selector its byte out of the eight of y:x; with 8 added, its sign eight times.
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = selector >> 4 * i & 15, byte = (unsigned)(both >> 8 * (choice & 7)) & 255;
        if (choice & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    return result;
}
static inline int __dp4a(int a, int b, int c) {
    unsigned sum = (unsigned)c;
    for (int i = 0; i < 4; i++) sum += (unsigned)((signed char)(a >> 8 * i) * (signed char)(b >> 8 * i));
    return (int)sum;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}
static inline int __dp4a(char4 a, char4 b, int c) { return __dp4a(cs_bits<int>(a), cs_bits<int>(b), c); }
static inline unsigned __dp4a(uchar4 a, uchar4 b, unsigned c) { return __dp4a(cs_bits<unsigned>(a), cs_bits<unsigned>(b), c); }
static inline int __dp2a_lo(int a, int b, int c) {
    return (int)((unsigned)c + (unsigned)((short)a * (signed char)b) + (unsigned)((short)(a >> 16) * (signed char)(b >> 8)));
}
static inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }
// Shifts that stop at 32 instead of counting modulo 32.
static inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned shift) {
    return shift >= 32 ? low : __funnelshift_l(low, high, shift);
}
static inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
    return shift >= 32 ? high : __funnelshift_r(low, high, shift);
}
static inline unsigned __fns(unsigned mask, unsigned base, int offset) {
    if (offset == 0) return mask >> base & 1 ? base : 0xffffffffu;
    int step = offset > 0 ? 1 : -1, left = offset > 0 ? offset : -offset;
    for (int at = (int)base; at >= 0 && at < 32; at += step)
        if (mask >> at & 1 && --left == 0) return (unsigned)at;
    return 0xffffffffu;
}

// Four bytes, or two halves, at once.
#define CS_LANES(name, T, U, count, expression)                                  \
    static inline unsigned name(unsigned a, unsigned b) {                        \
        unsigned result = 0, width = 32 / count;                                 \
        for (int i = 0; i < count; i++) {                                        \
            T x = (T)(a >> width * i), y = (T)(b >> width * i);                  \
            result |= (unsigned)(U)(expression) << width * i;                    \
        }                                                                        \
        return result;                                                           \
    }
CS_LANES(__vadd4, unsigned char, unsigned char, 4, x + y)
CS_LANES(__vsub4, unsigned char, unsigned char, 4, x - y)
CS_LANES(__vadd2, unsigned short, unsigned short, 2, x + y)
CS_LANES(__vsub2, unsigned short, unsigned short, 2, x - y)
CS_LANES(__vmaxu4, unsigned char, unsigned char, 4, x > y ? x : y)
CS_LANES(__vminu4, unsigned char, unsigned char, 4, x < y ? x : y)
CS_LANES(__vmaxs4, signed char, unsigned char, 4, x > y ? x : y)
CS_LANES(__vmins4, signed char, unsigned char, 4, x < y ? x : y)
CS_LANES(__vmaxu2, unsigned short, unsigned short, 2, x > y ? x : y)
CS_LANES(__vminu2, unsigned short, unsigned short, 2, x < y ? x : y)
CS_LANES(__vabsdiffu4, unsigned char, unsigned char, 4, x > y ? x - y : y - x)
CS_LANES(__vcmpeq4, unsigned char, unsigned char, 4, x == y ? 255 : 0)
CS_LANES(__vcmpgtu4, unsigned char, unsigned char, 4, x > y ? 255 : 0)
CS_LANES(__vcmpltu4, unsigned char, unsigned char, 4, x < y ? 255 : 0)
CS_LANES(__vavgu4, unsigned char, unsigned char, 4, (x + y + 1) / 2)
CS_LANES(__vaddus4, unsigned char, unsigned char, 4, x + y > 255 ? 255 : x + y)
CS_LANES(__vsubus4, unsigned char, unsigned char, 4, x > y ? x - y : 0)
static inline unsigned __vsadu4(unsigned a, unsigned b) {
    unsigned d = __vabsdiffu4(a, b);
    return (d & 255) + (d >> 8 & 255) + (d >> 16 & 255) + (d >> 24);
}

// ---------------------------------------------------------------- loads, stores, atomics

// The hints say which cache to use; there is none here.
#define CS_LOAD(name)                                                                                    \
    template <class T>                                                                                   \
    static __attribute__((always_inline)) inline T name(const T* address) {                              \
        return *address;                                                                                 \
    }
CS_LOAD(__ldca) CS_LOAD(__ldcg) CS_LOAD(__ldcv) CS_LOAD(__ldlu)
#define CS_STORE(name)                                                                                   \
    template <class T>                                                                                   \
    static __attribute__((always_inline)) inline void name(T* address, std::type_identity_t<T> value) {  \
        *address = value;                                                                                \
    }
CS_STORE(__stwb) CS_STORE(__stcg) CS_STORE(__stwt)
#define __prefetch_global_l1(address) ((void)(address))
#define __prefetch_global_l2(address) ((void)(address))

static inline long long atomicExch(long long* address, long long value) {
    return cs_atomic(address, [=](long long) CS_UNCHECKED -> long long { return value; });
}
static inline unsigned long atomicAdd(unsigned long* address, unsigned long value) {
    return cs_atomic(address, [=](unsigned long old) CS_UNCHECKED -> unsigned long { return old + value; });
}
static inline unsigned long atomicCAS(unsigned long* address, unsigned long expected, unsigned long value) {
    return cs_atomic(address, [=](unsigned long old) CS_UNCHECKED -> unsigned long { return old == expected ? value : old; });
}
// nvcc converts the arguments to what the address points to.
#define CS_ATOMIC_CONVERTS(name)                                                                            \
    template <class T, class V>                                                                             \
        requires(std::is_arithmetic_v<T> && std::is_convertible_v<V, T> && !std::is_same_v<T, V>)           \
    static inline T name(T* address, V value) {                                                             \
        return name(address, (T)value);                                                                     \
    }                                                                                                       \
    template <class T, class V>                                                                             \
        requires(std::is_arithmetic_v<T> && std::is_convertible_v<V, T>)                                    \
    static inline T name(volatile T* address, V value) {                                                    \
        return name((T*)address, (T)value);                                                                 \
    }
CS_ATOMIC_CONVERTS(atomicAdd) CS_ATOMIC_CONVERTS(atomicSub) CS_ATOMIC_CONVERTS(atomicExch) CS_ATOMIC_CONVERTS(atomicMin)
CS_ATOMIC_CONVERTS(atomicMax) CS_ATOMIC_CONVERTS(atomicAnd) CS_ATOMIC_CONVERTS(atomicOr) CS_ATOMIC_CONVERTS(atomicXor)
CS_ATOMIC_CONVERTS(atomicInc) CS_ATOMIC_CONVERTS(atomicDec)
template <class T, class A, class B>
    requires(std::is_arithmetic_v<T> && std::is_convertible_v<A, T> && std::is_convertible_v<B, T> &&
             !(std::is_same_v<A, T> && std::is_same_v<B, T>))
static inline T atomicCAS(T* address, A expected, B value) {
    return atomicCAS(address, (T)expected, (T)value);
}
template <class T, class A, class B>
static inline T atomicCAS(volatile T* address, A expected, B value) {
    return atomicCAS((T*)address, (T)expected, (T)value);
}
#define CS_SCOPES(name)                                                                                  \
    template <class T, class V>                                                                          \
    static inline T name##_block(T* address, V value) { return name(address, value); }                   \
    template <class T, class V>                                                                          \
    static inline T name##_system(T* address, V value) { return name(address, value); }
CS_SCOPES(atomicAdd) CS_SCOPES(atomicSub) CS_SCOPES(atomicExch) CS_SCOPES(atomicMin) CS_SCOPES(atomicMax)
CS_SCOPES(atomicAnd) CS_SCOPES(atomicOr) CS_SCOPES(atomicXor) CS_SCOPES(atomicInc) CS_SCOPES(atomicDec)
template <class T, class A, class B>
static inline T atomicCAS_block(T* address, A expected, B value) { return atomicCAS(address, expected, value); }
template <class T, class A, class B>
static inline T atomicCAS_system(T* address, A expected, B value) { return atomicCAS(address, expected, value); }

// ---------------------------------------------------------------- warps

// CUDA 8 and before: all lanes that are still there take part.
#define __shfl(...) __shfl_sync(__activemask(), __VA_ARGS__)
#define __shfl_up(...) __shfl_up_sync(__activemask(), __VA_ARGS__)
#define __shfl_down(...) __shfl_down_sync(__activemask(), __VA_ARGS__)
#define __shfl_xor(...) __shfl_xor_sync(__activemask(), __VA_ARGS__)
#define __ballot(predicate) __ballot_sync(__activemask(), predicate)
#define __any(predicate) __any_sync(__activemask(), predicate)
#define __all(predicate) __all_sync(__activemask(), predicate)

// The lanes of the mask tell each other their values, one after the other.
template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value) {
    unsigned same = 0;
    for (unsigned left = mask; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        T other = __shfl_sync(mask, value, lane);
        if (!__builtin_memcmp(&other, &value, sizeof value)) same |= 1u << lane;
    }
    return same;
}
template <class T>
static inline unsigned __match_all_sync(unsigned mask, T value, int* all) {
    *all = __match_any_sync(mask, value) == mask;
    *all = __all_sync(mask, *all);
    return *all ? mask : 0;
}
template <class T, class F>
static inline T cs_reduce_lanes(unsigned mask, T value, F join) {
    T result = value;
    bool first = true;
    for (unsigned left = mask; left; left &= left - 1) {
        T other = __shfl_sync(mask, value, __builtin_ctz(left));
        result = first ? other : join(result, other);
        first = false;
    }
    return result;
}
#define CS_REDUCE(name, T, result) \
    static inline T name(unsigned mask, T value) { return cs_reduce_lanes(mask, value, [](T a, T b) -> T { return result; }); }
CS_REDUCE(__reduce_add_sync, unsigned, a + b)
CS_REDUCE(__reduce_add_sync, int, (int)((unsigned)a + (unsigned)b))
CS_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CS_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CS_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CS_REDUCE(__reduce_max_sync, int, a > b ? a : b)
CS_REDUCE(__reduce_and_sync, unsigned, a & b)
CS_REDUCE(__reduce_or_sync, unsigned, a | b)
CS_REDUCE(__reduce_xor_sync, unsigned, a ^ b)

// ---------------------------------------------------------------- time, memory, the rest

// No clock: every look at it finds it a thousand later, so that a wait by the clock ends, and every run is the same.
static long long cs_now;
static inline CS_UNCHECKED long long clock64() { return cs_now += 1000; }
static inline long clock() { return (long)clock64(); }
typedef long clock_t;
static inline unsigned long long globaltimer() { return (unsigned long long)clock64(); }
static inline void __nanosleep(unsigned) {}
static inline void __brkpt() {}

static inline size_t __cvta_generic_to_shared(const void* p) { return (size_t)p; }
static inline size_t __cvta_generic_to_global(const void* p) { return (size_t)p; }
static inline bool __isShared(const void*) { return false; }
static inline int memcmp(const void* a, const void* b, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char*)a)[i] != ((const unsigned char*)b)[i])
            return ((const unsigned char*)a)[i] < ((const unsigned char*)b)[i] ? -1 : 1;
    return 0;
}
static inline size_t strlen(const char* text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

// Names that lie in std:: too.
namespace std {
using ::abs; using ::acos; using ::asin; using ::atan; using ::atan2; using ::cbrt; using ::ceil; using ::copysign;
using ::cos; using ::cosh; using ::erf; using ::exp; using ::exp2; using ::expm1; using ::fabs; using ::floor;
using ::fma; using ::fmax; using ::fmin; using ::fmod; using ::hypot; using ::isfinite; using ::isinf; using ::isnan;
using ::log; using ::log10; using ::log1p; using ::log2; using ::max; using ::memcpy; using ::memset; using ::min;
using ::pow; using ::rint; using ::round; using ::sin; using ::sinh; using ::sqrt; using ::tan; using ::tanh;
using ::trunc; using ::signbit;
template <class T>
constexpr const T& clamp(const T& x, const T& low, const T& high) { return x < low ? low : high < x ? high : x; }
}  // namespace std
