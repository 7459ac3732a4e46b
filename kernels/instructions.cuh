// Instructions of a card that CUDA C++ has no words for: asynchronous copies and matrix units.  This is the one file
// with PTX, NVIDIA's assembly.  The emulator defines CUDASIM, and does the same in C++ (minigrad/cudasim/cpp).

// ---------------------------------------------------------------- asynchronous copies

// A copy from global to shared memory that needs no register on its way and that nobody waits for at once: a block
// starts the copies of the next tiles, multiplies those that are there, and only then waits.
//
//     copy_async<16>(&tile[k][n], &b[k * N + n], k < K && n < N);   // any number of them
//     copy_async_commit();                                          // they are a group
//     ...
//     copy_async_wait<0>();                                         // what this thread has copied is there
//     __syncthreads();                                              // and what the others have
//
// Until the wait, the bytes at `shared` are neither the old ones nor the new ones: nobody may read or write them.

// BYTES (4, 8 or 16) from `global` to `shared`, both at a multiple of BYTES.  Where not `inside`, zeros instead, and
// `global` is not read.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool inside) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "an asynchronous copy moves 4, 8 or 16 bytes");
#ifdef CUDASIM
    cs_copy_async(shared, global, BYTES, inside);
#elif __CUDA_ARCH__ >= 800
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    size_t from = __cvta_generic_to_global(global);
    int bytes = inside ? BYTES : 0;  // to read; the rest of BYTES becomes zeros
    if (BYTES == 16)  // past the first cache, which would keep it for nobody
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from),
                     "n"(BYTES == 16 ? 4 : BYTES), "r"(bytes)
                     : "memory");
#else  // older cards have no such instruction: an ordinary copy, done at once
    struct __align__(BYTES) Bytes {
        unsigned word[BYTES / 4];
    };
    *(Bytes*)shared = inside ? *(const Bytes*)global : Bytes{};
#endif
}

// Closes a group: all copies of this thread since the last one.  A group may be empty.
__device__ __forceinline__ void copy_async_commit() {
#ifdef CUDASIM
    cs_copy_async_commit();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all groups of this thread have arrived, but for the NEWEST newest.  Only a barrier shows them to others.
template <int NEWEST>
__device__ __forceinline__ void copy_async_wait() {
#ifdef CUDASIM
    cs_copy_async_wait(NEWEST);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
#endif
}

// ---------------------------------------------------------------- matrix units

// A warp multiplies two small matrices at once, and adds the product to a third:
//
//     d += a b        d: 16 x 8,  a: 16 x 8,  b: 8 x 8
//
// Each of its 32 lanes has a few elements of each matrix, its *fragments*:
//
//     a[i]   row lane / 4 + i % 2 * 8,  column lane % 4 + i / 2 * 4
//     b[i]   row lane % 4 + i * 4,      column lane / 4
//     d[i]   row lane / 4 + i / 2 * 8,  column lane % 4 * 2 + i % 2
//
// docs/cuda.md has a picture.  d is float32.  The factors are TF32: floats of which 10 bits of the mantissa count, and
// not 23.  tf32() rounds to them.

// x with 10 bits of mantissa: the nearest such number, and of two that are as near the one further from zero.
__device__ __forceinline__ float tf32(float x) {
#ifdef CUDASIM
    return cs_tf32(x);
#elif __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
#else  // half of the last place that stays is added, then the rest is cut off
    return fabs(x) < INFINITY ? __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u) : x;
#endif
}

// d += a b.  All 32 lanes of the warp must call it, together.  The factors must have been rounded by tf32(): a card
// does not look at their last 13 bits, which is as if it rounded towards zero.
//
// The products are exact, as 2 x 11 bits fit a float.  The emulator adds them to d in the order of k, each time
// rounding to the nearest float.  In which order a card adds them, with how many bits and how rounded, NVIDIA does not
// say; it is always the same.
__device__ __forceinline__ void multiply_add_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
#ifdef CUDASIM
    cs_multiply_add_tf32(d, a, b);
#elif __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
    __trap();  // older cards have no such units; the host never launches it there
#endif
}
