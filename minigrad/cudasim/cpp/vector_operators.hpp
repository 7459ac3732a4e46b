// Arithmetic of float4 and its kin, as NVIDIA's samples have it in helper_math.h: for files that include it from a folder
// that is not here.
#pragma once

#define CS_EACH_2(f, a, b) {f(a.x, b.x), f(a.y, b.y)}
#define CS_EACH_3(f, a, b) {f(a.x, b.x), f(a.y, b.y), f(a.z, b.z)}
#define CS_EACH_4(f, a, b) {f(a.x, b.x), f(a.y, b.y), f(a.z, b.z), f(a.w, b.w)}
#define CS_PLUS(a, b) (T)((a) + (b))
#define CS_MINUS(a, b) (T)((a) - (b))
#define CS_TIMES(a, b) (T)((a) * (b))
#define CS_OVER(a, b) (T)((a) / (b))
#define CS_MIN(a, b) ((b) < (a) ? (b) : (a))
#define CS_MAX(a, b) ((a) < (b) ? (b) : (a))
#define CS_SAME_2(s) {s, s}
#define CS_SAME_3(s) {s, s, s}
#define CS_SAME_4(s) {s, s, s, s}
#define CS_VECTORS(V, scalar, n)                                                               \
    namespace cs_##V {                                                                         \
    typedef scalar T;                                                                          \
    static inline V all(T s) { return CS_SAME_##n(s); }                                        \
    static inline V plus(const V& a, const V& b) { return CS_EACH_##n(CS_PLUS, a, b); }        \
    static inline V minus(const V& a, const V& b) { return CS_EACH_##n(CS_MINUS, a, b); }      \
    static inline V times(const V& a, const V& b) { return CS_EACH_##n(CS_TIMES, a, b); }      \
    static inline V over(const V& a, const V& b) { return CS_EACH_##n(CS_OVER, a, b); }        \
    static inline V least(const V& a, const V& b) { return CS_EACH_##n(CS_MIN, a, b); }        \
    static inline V most(const V& a, const V& b) { return CS_EACH_##n(CS_MAX, a, b); }         \
    }                                                                                          \
    CS_VECTOR_SIGN(V, scalar, +, plus)                                                         \
    CS_VECTOR_SIGN(V, scalar, -, minus)                                                        \
    CS_VECTOR_SIGN(V, scalar, *, times)                                                        \
    CS_VECTOR_SIGN(V, scalar, /, over)                                                         \
    static inline V operator-(const V& a) { return cs_##V::minus(cs_##V::all(0), a); }         \
    static inline V make_##V(scalar s) { return cs_##V::all(s); }                              \
    static inline V min(const V& a, const V& b) { return cs_##V::least(a, b); }                \
    static inline V max(const V& a, const V& b) { return cs_##V::most(a, b); }                 \
    static inline V clamp(const V& v, scalar a, scalar b) { return max(cs_##V::all(a), min(v, cs_##V::all(b))); } \
    static inline V clamp(const V& v, const V& a, const V& b) { return max(a, min(v, b)); }
#define CS_VECTOR_SIGN(V, scalar, sign, name)                                                              \
    static inline V operator sign(const V& a, const V& b) { return cs_##V::name(a, b); }                   \
    static inline V operator sign(const V& a, scalar b) { return cs_##V::name(a, cs_##V::all(b)); }        \
    static inline V operator sign(scalar a, const V& b) { return cs_##V::name(cs_##V::all(a), b); }        \
    static inline V& operator sign##=(V& a, const V& b) { return a = a sign b; }                           \
    static inline V& operator sign##=(V& a, scalar b) { return a = a sign b; }
CS_VECTORS(float2, float, 2) CS_VECTORS(float3, float, 3) CS_VECTORS(float4, float, 4)
CS_VECTORS(int2, int, 2) CS_VECTORS(int3, int, 3) CS_VECTORS(int4, int, 4)
CS_VECTORS(uint2, unsigned, 2) CS_VECTORS(uint3, unsigned, 3) CS_VECTORS(uint4, unsigned, 4)

static inline float2 make_float2(const float3& a) { return {a.x, a.y}; }
static inline float3 make_float3(const float2& a, float z = 0.0f) { return {a.x, a.y, z}; }
static inline float3 make_float3(const float4& a) { return {a.x, a.y, a.z}; }
static inline float4 make_float4(const float3& a, float w = 0.0f) { return {a.x, a.y, a.z, w}; }
static inline float2 make_float2(const int2& a) { return {(float)a.x, (float)a.y}; }
static inline float3 make_float3(const int3& a) { return {(float)a.x, (float)a.y, (float)a.z}; }
static inline float4 make_float4(const int4& a) { return {(float)a.x, (float)a.y, (float)a.z, (float)a.w}; }
static inline int2 make_int2(const float2& a) { return {(int)a.x, (int)a.y}; }
static inline int3 make_int3(const float3& a) { return {(int)a.x, (int)a.y, (int)a.z}; }
static inline float dot(const float2& a, const float2& b) { return a.x * b.x + a.y * b.y; }
static inline float dot(const float3& a, const float3& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static inline float dot(const float4& a, const float4& b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
static inline float3 cross(const float3& a, const float3& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
static inline float lerp(float a, float b, float t) { return a + t * (b - a); }
static inline float clamp(float f, float a, float b) { return fmaxf(a, fminf(f, b)); }
static inline int clamp(int f, int a, int b) { return max(a, min(f, b)); }
static inline unsigned clamp(unsigned f, unsigned a, unsigned b) { return max(a, min(f, b)); }
#define CS_GEOMETRY(V)                                                                      \
    static inline float length(const V& v) { return sqrtf(dot(v, v)); }                     \
    static inline V normalize(const V& v) { return v * (1.0f / sqrtf(dot(v, v))); }         \
    static inline V lerp(const V& a, const V& b, float t) { return a + t * (b - a); }       \
    static inline V fminf(const V& a, const V& b) { return min(a, b); }                     \
    static inline V fmaxf(const V& a, const V& b) { return max(a, b); }                     \
    static inline V reflect(const V& i, const V& n) { return i - 2.0f * n * dot(n, i); }
CS_GEOMETRY(float2) CS_GEOMETRY(float3) CS_GEOMETRY(float4)
static inline float2 floorf(const float2& v) { return {floorf(v.x), floorf(v.y)}; }
static inline float3 floorf(const float3& v) { return {floorf(v.x), floorf(v.y), floorf(v.z)}; }
static inline float4 floorf(const float4& v) { return {floorf(v.x), floorf(v.y), floorf(v.z), floorf(v.w)}; }
static inline float3 fabs(const float3& v) { return {fabsf(v.x), fabsf(v.y), fabsf(v.z)}; }
