// From the runtime into a kernel: functions that run one thread or one block, and the types of the parameters as text.
#pragma once

// ---------------------------------------------------------------- types as text: "const float32*", "int32", "V392"

static __noinline__ char* cs_append(char* out, const char* text) {
    while (*text) *out++ = *text++;
    return out;
}

static __noinline__ char* cs_append(char* out, unsigned number) {
    if (number > 9) out = cs_append(out, number / 10);
    *out++ = (char)('0' + number % 10);
    return out;
}

// NumPy's name of a type; V<size> for a struct.
template <class T>
struct CsType {
    static char* name(char* out) {
        if constexpr (__is_class(T)) {
            return cs_append(cs_append(out, "V"), (unsigned)sizeof(T));
        } else {
            out = cs_append(out, T(0.5) > T(0) ? "float" : T(-1) < T(0) ? "int" : "uint");
            return cs_append(out, (unsigned)sizeof(T) * 8);
        }
    }
};
template <>
struct CsType<bool> {
    static char* name(char* out) { return cs_append(out, "bool"); }
};
template <>
struct CsType<void> {
    static char* name(char* out) { return cs_append(out, "void"); }
};
template <class T>
struct CsType<const T> {
    static char* name(char* out) { return CsType<T>::name(cs_append(out, "const ")); }
};
template <class T, cs_u64 N>  // a pointer to rows, float (*)[64], is one to their elements
struct CsType<T[N]> : CsType<T> {};
template <class T, cs_u64 N>
struct CsType<const T[N]> : CsType<const T> {};
template <class T>
struct CsType<T*> {
    static char* name(char* out) { return cs_append(CsType<T>::name(out), "*"); }
};

// ---------------------------------------------------------------- running

static inline CS_UNCHECKED uint3 cs_triple(const cs_u32* from) { return {from[0], from[1], from[2]}; }

template <int...>
struct CsNumbers {};

template <auto kernel>
struct CsEntry;
template <class... Types, void (*kernel)(Types...)>
struct CsEntry<kernel> {
    typedef CsNumbers<__integer_pack(sizeof...(Types))...> All;

    static CS_UNCHECKED void place_here(const CsPlace& place) {
        cs_here = {cs_triple(place.thread), cs_triple(place.block), cs_triple(place.block_size),
                   cs_triple(place.grid_size)};
    }

    static CS_UNCHECKED void thread(void** parameters, const CsPlace& place) {
        place_here(place);
        one(parameters, All());
    }
    template <int... i>
    static CS_UNCHECKED void one(void** parameters, CsNumbers<i...>) {
        kernel(*(Types*)parameters[i]...);
    }

    // All threads of a block, for kernels in which none waits for another: a plain loop that g++ can vectorise.
    static void block(void** parameters, const CsPlace& place) {
        place_here(place);
        all(parameters, All());
    }
    template <int... i>
    static void all(void** parameters, CsNumbers<i...>) {
        loop(*(Types*)parameters[i]...);
    }
    static __attribute__((noinline)) void loop(Types... arguments) {
        uint3 size = blockDim;
        for (unsigned z = 0; z < size.z; z++)
            for (unsigned y = 0; y < size.y; y++)
                for (unsigned x = 0; x < size.x; x++) {
                    threadIdx = {x, y, z};
                    kernel(arguments...);
                }
    }

    static void describe(char* out) {
        ((out = cs_append(CsType<Types>::name(out), "\n")), ...);
        *out = 0;
    }
};

// Lines of the table that the builder appends to the source.
#define CS_KERNEL(k) {#k, 0, CsEntry<k>::describe, CsEntry<k>::thread, CsEntry<k>::block}
#define CS_KERNEL_WAITS(k) {#k, 1, CsEntry<k>::describe, CsEntry<k>::thread, nullptr}
