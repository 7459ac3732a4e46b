// cuda_fp16.h and cuda_bf16.h: numbers of 16 bits, computed in float and rounded to nearest, ties to even.  A float has
// more than twice their bits, so that the second rounding changes nothing, in sums, products, quotients and roots; the
// multiply-add, which is rounded once, is computed to odd in double.
#pragma once

// `x` as a number with `fraction` bits behind the point, and that many bits of exponent.
static CS_UNCHECKED inline unsigned short cs_narrow(double x, int exponent_bits, int fraction) {
    cs_u64 bits = cs_bits<cs_u64>(x), sign = bits >> 63 << 15;
    int bias = (1 << (exponent_bits - 1)) - 1, most = 2 * bias + 1;
    int exponent = (int)(bits >> 52 & 2047) - 1023 + bias;
    cs_u64 significand = bits & ((1ull << 52) - 1);
    if ((bits >> 52 & 2047) == 2047) return significand ? 0x7fff : (unsigned short)(sign | (cs_u64)most << fraction);
    if (exponent >= most) return (unsigned short)(sign | (cs_u64)most << fraction);
    if (bits >> 52 & 2047) significand |= 1ull << 52;
    int shift = 52 - fraction;
    if (exponent <= 0) shift += 1 - exponent, exponent = 1;
    if (shift > 62) return (unsigned short)sign;
    cs_u64 kept = significand >> shift, rest = significand & ((1ull << shift) - 1), tie = 1ull << (shift - 1);
    if (rest > tie || (rest == tie && (kept & 1))) kept++;
    return (unsigned short)(sign | (((cs_u64)(exponent - 1) << fraction) + kept));  // a carry goes into the exponent
}
static CS_UNCHECKED inline float cs_widen_half(unsigned short bits) {
    unsigned sign = (unsigned)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return cs_bits<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent) return cs_bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
    float small = (float)(int)fraction * 5.9604644775390625e-8f;  // 2^-24: no float this large is flushed
    return sign ? -small : small;
}
static CS_UNCHECKED inline float cs_widen_bfloat(unsigned short bits) { return cs_bits<float>((unsigned)bits << 16); }

// x y + z with the last bit set where something was cut off: rounded once more, to fewer bits, it is right.
static CS_NO_FMA CS_UNCHECKED double cs_fma_to_odd(double x, double y, double z) {
    double product = x * y, sum = product + z, other = sum - product;
    double error = (product - (sum - other)) + (z - other);
    cs_u64 bits = cs_bits<cs_u64>(sum);
    if (error != 0 && error == error && !(bits & 1) && (bits >> 52 & 2047) != 2047)
        bits += (error > 0) == (sum > 0) ? 1 : -1;
    return cs_bits<double>(bits);
}

struct __half_raw { unsigned short x; };
struct __nv_bfloat16_raw { unsigned short x; };

#define CS_NARROW_TYPE(T, Raw, narrow, widen)                                                                      \
    struct __align__(2) T {                                                                                        \
        unsigned short __x;                                                                                        \
        T() = default;                                                                                             \
        T(Raw raw) : __x(raw.x) {}                                                                                 \
        T(float x) : __x(narrow((double)x)) {}                                                                     \
        T(double x) : __x(narrow(x)) {}                                                                            \
        template <CsInteger I>                                                                                     \
        T(I x) : __x(narrow(cs_integer_to_double(x))) {}                                                           \
        operator float() const { return widen(__x); }                                                              \
        operator Raw() const { return {__x}; }                                                                     \
        template <class I>                                                                                         \
            requires(std::is_integral_v<I>)                                                                        \
        explicit operator I() const {                                                                              \
            return (I)widen(__x);                                                                                  \
        }                                                                                                          \
        explicit operator double() const { return widen(__x); }                                                    \
        T& operator+=(const T& b) { return *this = T(widen(__x) + widen(b.__x)); }                                 \
        T& operator-=(const T& b) { return *this = T(widen(__x) - widen(b.__x)); }                                 \
        T& operator*=(const T& b) { return *this = T(widen(__x) * widen(b.__x)); }                                 \
        T& operator/=(const T& b) { return *this = T(widen(__x) / widen(b.__x)); }                                 \
        T& operator++() { return *this = T(widen(__x) + 1.0f); }                                                   \
        T& operator--() { return *this = T(widen(__x) - 1.0f); }                                                   \
        T operator++(int) { T old = *this; ++*this; return old; }                                                  \
        T operator--(int) { T old = *this; --*this; return old; }                                                  \
    };                                                                                                             \
    static inline T operator+(const T& a, const T& b) { return T((float)a + (float)b); }                           \
    static inline T operator-(const T& a, const T& b) { return T((float)a - (float)b); }                           \
    static inline T operator*(const T& a, const T& b) { return T((float)a * (float)b); }                           \
    static inline T operator/(const T& a, const T& b) { return T((float)a / (float)b); }                           \
    static inline T operator-(const T& a) { return T(Raw{(unsigned short)(a.__x ^ 0x8000)}); }                     \
    static inline T operator+(const T& a) { return a; }                                                            \
    static inline bool operator==(const T& a, const T& b) { return (float)a == (float)b; }                         \
    static inline bool operator!=(const T& a, const T& b) { return (float)a != (float)b; }                         \
    static inline bool operator<(const T& a, const T& b) { return (float)a < (float)b; }                           \
    static inline bool operator>(const T& a, const T& b) { return (float)a > (float)b; }                           \
    static inline bool operator<=(const T& a, const T& b) { return (float)a <= (float)b; }                         \
    static inline bool operator>=(const T& a, const T& b) { return (float)a >= (float)b; }

// An integer of 64 bits may need more bits than a double has: to odd, too.
template <class I>
static CS_UNCHECKED inline double cs_integer_to_double(I x) {
    if (sizeof(I) < 8) return (double)x;
    bool negative = x < 0;
    cs_u64 size = negative ? 0 - (cs_u64)x : (cs_u64)x;
    if (size >> 53) size = size >> 11 << 11 | (cs_u64)((size & 2047) != 0) << 11;
    return negative ? -(double)size : (double)size;
}
static CS_UNCHECKED inline unsigned short cs_narrow_half(double x) { return cs_narrow(x, 5, 10); }
static CS_UNCHECKED inline unsigned short cs_narrow_bfloat(double x) { return cs_narrow(x, 8, 7); }
CS_NARROW_TYPE(__half, __half_raw, cs_narrow_half, cs_widen_half)
CS_NARROW_TYPE(__nv_bfloat16, __nv_bfloat16_raw, cs_narrow_bfloat, cs_widen_bfloat)

struct __align__(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half x, __half y) : x(x), y(y) {}
};
struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) : x(x), y(y) {}
};
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
typedef __half __nv_half;
typedef __half2 __nv_half2;

template <>
struct CsType<__half> {
    static char* name(char* out) { return cs_append(out, "float16"); }
};

// ---------------------------------------------------------------- intrinsics, of one number and of pairs

#define CS_PAIR_1(name, name2, T2) \
    static inline T2 name2(T2 a) { return T2(name(a.x), name(a.y)); }
#define CS_PAIR_2(name, name2, T2) \
    static inline T2 name2(T2 a, T2 b) { return T2(name(a.x, b.x), name(a.y, b.y)); }

#define CS_NARROW_FUNCTIONS(T, T2, Raw, narrow)                                                                     \
    static inline T __hadd(T a, T b) { return a + b; }                                                              \
    static inline T __hsub(T a, T b) { return a - b; }                                                              \
    static inline T __hmul(T a, T b) { return a * b; }                                                              \
    static inline T __hdiv(T a, T b) { return a / b; }                                                              \
    static inline T __hadd_rn(T a, T b) { return a + b; }                                                           \
    static inline T __hsub_rn(T a, T b) { return a - b; }                                                           \
    static inline T __hmul_rn(T a, T b) { return a * b; }                                                           \
    static inline T __hadd_sat(T a, T b) { return T(__saturatef((float)(a + b))); }                                 \
    static inline T __hsub_sat(T a, T b) { return T(__saturatef((float)(a - b))); }                                 \
    static inline T __hmul_sat(T a, T b) { return T(__saturatef((float)(a * b))); }                                 \
    static inline T __hfma(T a, T b, T c) { return T(Raw{narrow(cs_fma_to_odd((float)a, (float)b, (float)c))}); }   \
    static inline T __hfma_relu(T a, T b, T c) { T d = __hfma(a, b, c); return (float)d > 0 ? d : T(0.0f); }        \
    static inline T __hneg(T a) { return -a; }                                                                      \
    static inline T __habs(T a) { return T(Raw{(unsigned short)(a.__x & 0x7fff)}); }                                \
    static inline bool __heq(T a, T b) { return a == b; }                                                           \
    static inline bool __hne(T a, T b) { return a < b || a > b; }                                                   \
    static inline bool __hlt(T a, T b) { return a < b; }                                                            \
    static inline bool __hle(T a, T b) { return a <= b; }                                                           \
    static inline bool __hgt(T a, T b) { return a > b; }                                                            \
    static inline bool __hge(T a, T b) { return a >= b; }                                                           \
    static inline bool __hisnan(T a) { return (float)a != (float)a; }                                               \
    static inline int __hisinf(T a) { return isinf((float)a) ? (float)a > 0 ? 1 : -1 : 0; }                         \
    static inline T __hmax(T a, T b) { return T(fmaxf((float)a, (float)b)); }                                       \
    static inline T __hmin(T a, T b) { return T(fminf((float)a, (float)b)); }                                       \
    static inline T __hmax_nan(T a, T b) { return a != a ? a : b != b ? b : __hmax(a, b); }                         \
    static inline T __hmin_nan(T a, T b) { return a != a ? a : b != b ? b : __hmin(a, b); }                         \
    static inline T max(T a, T b) { return __hmax(a, b); }                                                          \
    static inline T min(T a, T b) { return __hmin(a, b); }                                                          \
    static inline T hsqrt(T a) { return T(sqrtf((float)a)); }                                                       \
    static inline T hrsqrt(T a) { return T(Raw{narrow(1.0 / __builtin_sqrt((double)(float)a))}); }                  \
    static inline T hrcp(T a) { return T(Raw{narrow(1.0 / (double)(float)a)}); }                                    \
    static inline T hexp(T a) { return T(Raw{narrow(__builtin_exp((double)(float)a))}); }                           \
    static inline T hexp2(T a) { return T(Raw{narrow(__builtin_exp2((double)(float)a))}); }                         \
    static inline T hexp10(T a) { return T(Raw{narrow(exp10((double)(float)a))}); }                                 \
    static inline T hlog(T a) { return T(Raw{narrow(__builtin_log((double)(float)a))}); }                           \
    static inline T hlog2(T a) { return T(Raw{narrow(__builtin_log2((double)(float)a))}); }                         \
    static inline T hlog10(T a) { return T(Raw{narrow(__builtin_log10((double)(float)a))}); }                       \
    static inline T hsin(T a) { return T(Raw{narrow(__builtin_sin((double)(float)a))}); }                           \
    static inline T hcos(T a) { return T(Raw{narrow(__builtin_cos((double)(float)a))}); }                           \
    static inline T htanh(T a) { return T(Raw{narrow(__builtin_tanh((double)(float)a))}); }                         \
    static inline T hfloor(T a) { return T(floorf((float)a)); }                                                     \
    static inline T hceil(T a) { return T(ceilf((float)a)); }                                                       \
    static inline T htrunc(T a) { return T(truncf((float)a)); }                                                     \
    static inline T hrint(T a) { return T(rintf((float)a)); }                                                       \
    CS_PAIR_2(__hadd, __hadd2, T2) CS_PAIR_2(__hsub, __hsub2, T2) CS_PAIR_2(__hmul, __hmul2, T2)                    \
    CS_PAIR_2(__hdiv, __h2div, T2) CS_PAIR_2(__hmax, __hmax2, T2) CS_PAIR_2(__hmin, __hmin2, T2)                    \
    CS_PAIR_2(__hadd_sat, __hadd2_sat, T2) CS_PAIR_2(__hmul_sat, __hmul2_sat, T2)                                   \
    CS_PAIR_2(__hadd_rn, __hadd2_rn, T2) CS_PAIR_2(__hmul_rn, __hmul2_rn, T2)                                       \
    CS_PAIR_1(__hneg, __hneg2, T2) CS_PAIR_1(__habs, __habs2, T2)                                                   \
    CS_PAIR_1(hsqrt, h2sqrt, T2) CS_PAIR_1(hrsqrt, h2rsqrt, T2) CS_PAIR_1(hrcp, h2rcp, T2)                          \
    CS_PAIR_1(hexp, h2exp, T2) CS_PAIR_1(hexp2, h2exp2, T2) CS_PAIR_1(hlog, h2log, T2)                              \
    CS_PAIR_1(hlog2, h2log2, T2) CS_PAIR_1(hsin, h2sin, T2) CS_PAIR_1(hcos, h2cos, T2)                              \
    CS_PAIR_1(htanh, h2tanh, T2) CS_PAIR_1(hfloor, h2floor, T2) CS_PAIR_1(hceil, h2ceil, T2)                        \
    static inline T2 __hfma2(T2 a, T2 b, T2 c) { return T2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)); }         \
    static inline T2 operator+(const T2& a, const T2& b) { return __hadd2(a, b); }                                  \
    static inline T2 operator-(const T2& a, const T2& b) { return __hsub2(a, b); }                                  \
    static inline T2 operator*(const T2& a, const T2& b) { return __hmul2(a, b); }                                  \
    static inline T2 operator/(const T2& a, const T2& b) { return __h2div(a, b); }                                  \
    static inline T2 operator-(const T2& a) { return __hneg2(a); }                                                  \
    static inline T2& operator+=(T2& a, const T2& b) { return a = a + b; }                                          \
    static inline T2& operator-=(T2& a, const T2& b) { return a = a - b; }                                          \
    static inline T2& operator*=(T2& a, const T2& b) { return a = a * b; }                                          \
    static inline bool operator==(const T2& a, const T2& b) { return a.x == b.x && a.y == b.y; }                    \
    static inline bool __hbeq2(T2 a, T2 b) { return a == b; }                                                       \
    static inline bool __hblt2(T2 a, T2 b) { return a.x < b.x && a.y < b.y; }                                       \
    static inline bool __hbgt2(T2 a, T2 b) { return a.x > b.x && a.y > b.y; }                                       \
    static inline T2 __heq2(T2 a, T2 b) { return T2(T(a.x == b.x), T(a.y == b.y)); }                                \
    static inline T2 __hlt2(T2 a, T2 b) { return T2(T(a.x < b.x), T(a.y < b.y)); }                                  \
    static inline T2 __hgt2(T2 a, T2 b) { return T2(T(a.x > b.x), T(a.y > b.y)); }                                  \
    static inline T atomicAdd(T* address, T value) {                                                                \
        return cs_atomic(address, [=](T old) CS_UNCHECKED -> T { return old + value; });                            \
    }                                                                                                               \
    static inline T2 atomicAdd(T2* address, T2 value) {                                                             \
        return cs_atomic(address, [=](T2 old) CS_UNCHECKED -> T2 { return old + value; });                          \
    }
CS_NARROW_FUNCTIONS(__half, __half2, __half_raw, cs_narrow_half)
CS_NARROW_FUNCTIONS(__nv_bfloat16, __nv_bfloat162, __nv_bfloat16_raw, cs_narrow_bfloat)

// ---------------------------------------------------------------- conversions

// rz, rd, ru: what nearest gives, and one step back where that went the wrong way.
template <class T, class Raw>
static CS_UNCHECKED inline T cs_narrow_directed(float x, CsRounding mode) {
    T nearest(x);
    float y = (float)nearest;
    if (x != x || y == x || isinf(x)) return nearest;
    bool down = mode == CS_DOWN || (mode == CS_ZERO && x > 0);
    if (down == (y < x)) return nearest;
    bool smaller = down == (x > 0);  // in size
    if (y == 0) return T(Raw{(unsigned short)(down ? 0x8001 : 0x0001)});
    return T(Raw{(unsigned short)(nearest.__x + (smaller ? -1 : 1))});
}
#define CS_NARROW_CONVERSIONS(T, T2, Raw, half)                                                                      \
    static inline T __float2##half(float x) { return T(x); }                                                         \
    static inline T __float2##half##_rn(float x) { return T(x); }                                                    \
    static inline T __float2##half##_rz(float x) { return cs_narrow_directed<T, Raw>(x, CS_ZERO); }                  \
    static inline T __float2##half##_rd(float x) { return cs_narrow_directed<T, Raw>(x, CS_DOWN); }                  \
    static inline T __float2##half##_ru(float x) { return cs_narrow_directed<T, Raw>(x, CS_UP); }                    \
    static inline T __double2##half(double x) { return T(x); }                                                       \
    static inline float __##half##2float(T a) { return (float)a; }                                                   \
    static inline int __##half##2int_rn(T a) { return __float2int_rn((float)a); }                                    \
    static inline int __##half##2int_rz(T a) { return __float2int_rz((float)a); }                                    \
    static inline int __##half##2int_rd(T a) { return __float2int_rd((float)a); }                                    \
    static inline int __##half##2int_ru(T a) { return __float2int_ru((float)a); }                                    \
    static inline unsigned __##half##2uint_rn(T a) { return __float2uint_rn((float)a); }                             \
    static inline T __int2##half##_rn(int x) { return T(x); }                                                        \
    static inline T __uint2##half##_rn(unsigned x) { return T(x); }                                                  \
    static inline T __short2##half##_rn(short x) { return T(x); }                                                    \
    static inline T __ushort2##half##_rn(unsigned short x) { return T(x); }                                          \
    static inline T __ll2##half##_rn(long long x) { return T(x); }                                                   \
    static inline short __##half##_as_short(T a) { return (short)a.__x; }                                            \
    static inline unsigned short __##half##_as_ushort(T a) { return a.__x; }                                         \
    static inline T __short_as_##half(short x) { return T(Raw{(unsigned short)x}); }                                 \
    static inline T __ushort_as_##half(unsigned short x) { return T(Raw{x}); }                                       \
    static inline T2 __##half##2##half##2(T a) { return T2(a, a); }                                                  \
    static inline float __low2float(T2 a) { return (float)a.x; }                                                     \
    static inline float __high2float(T2 a) { return (float)a.y; }                                                    \
    static inline T2 __low2##half##2(T2 a) { return T2(a.x, a.x); }                                                  \
    static inline T2 __high2##half##2(T2 a) { return T2(a.y, a.y); }                                                 \
    static inline T2 __lowhigh2highlow(T2 a) { return T2(a.y, a.x); }                                                \
    static inline T2 __lows2##half##2(T2 a, T2 b) { return T2(a.x, b.x); }                                           \
    static inline T2 __highs2##half##2(T2 a, T2 b) { return T2(a.y, b.y); }                                          \
    static inline T2 __float2##half##2_rn(float x) { return T2(T(x), T(x)); }                                        \
    static inline T2 __floats2##half##2_rn(float x, float y) { return T2(T(x), T(y)); }                              \
    static inline T2 __float22##half##2_rn(float2 a) { return T2(T(a.x), T(a.y)); }                                  \
    static inline float2 __##half##22float2(T2 a) { return {(float)a.x, (float)a.y}; }                               \
    static inline T __low2##half(T2 a) { return a.x; }                                                               \
    static inline T __high2##half(T2 a) { return a.y; }                                                              \
    static inline T2 __halves2##half##2(T a, T b) { return T2(a, b); }                                               \
    static inline T2 make_##half##2(T a, T b) { return T2(a, b); }
CS_NARROW_CONVERSIONS(__half, __half2, __half_raw, half)
CS_NARROW_CONVERSIONS(__nv_bfloat16, __nv_bfloat162, __nv_bfloat16_raw, bfloat16)
static inline __nv_bfloat162 make_nv_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return __nv_bfloat162(a, b); }
static inline __half2 make___half2(__half a, __half b) { return __half2(a, b); }

template <>
struct std::numeric_limits<__half> {
    static __half max() { return __half_raw{0x7bff}; }
    static __half lowest() { return __half_raw{0xfbff}; }
    static __half min() { return __half_raw{0x0400}; }
    static __half infinity() { return __half_raw{0x7c00}; }
    static __half epsilon() { return __half_raw{0x1400}; }
};
#define CUDART_INF_FP16 __half(__half_raw{0x7c00})
#define CUDART_MAX_NORMAL_FP16 __half(__half_raw{0x7bff})
#define CUDART_ONE_FP16 __half(__half_raw{0x3c00})
#define CUDART_ZERO_FP16 __half(__half_raw{0})
#define CUDART_NAN_FP16 __half(__half_raw{0x7fff})
#define CUDART_INF_BF16 __nv_bfloat16(__nv_bfloat16_raw{0x7f80})
#define CUDART_ZERO_BF16 __nv_bfloat16(__nv_bfloat16_raw{0})
#define CUDART_ONE_BF16 __nv_bfloat16(__nv_bfloat16_raw{0x3f80})
