// python -m minigrad.cudasim softmax.cu --template 128 --grid 3 --block 128 x=normal:3x301 y=empty:3x301 V=301 --expect reference.py:softmax
#include <cuda_runtime.h>

struct __align__(8) MD { float m, d; };

__device__ __forceinline__ MD combine(MD a, MD b) {
    bool a_bigger = a.m > b.m;
    MD bigger = a_bigger ? a : b, smaller = a_bigger ? b : a;
    return {bigger.m, bigger.d + smaller.d * __expf(smaller.m - bigger.m)};
}

// Online softmax, a block for each row.
template <int THREADS>
__global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int V) {
    x += blockIdx.x * V;
    y += blockIdx.x * V;
    MD partial{-3.0e38f, 0.0f};
    for (int i = threadIdx.x; i < V; i += THREADS) partial = combine(partial, MD{x[i], 1.0f});
    __shared__ MD warps[THREADS / 32];
    __shared__ MD total;
    for (int mask = 16; mask; mask >>= 1) {
        MD other{__shfl_xor_sync(~0u, partial.m, mask), __shfl_xor_sync(~0u, partial.d, mask)};
        partial = combine(partial, other);
    }
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = partial;
    __syncthreads();  // warps
    if (threadIdx.x == 0) {
        MD all = warps[0];
        for (int w = 1; w < THREADS / 32; w++) all = combine(all, warps[w]);
        total = all;
    }
    __syncthreads();  // total
    float inverse = __fdividef(1.0F, total.d);
    for (int i = threadIdx.x; i < V; i += THREADS) y[i] = __expf(x[i] - total.m) * inverse;
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();  // warps  ->
//   RACE           __syncthreads();  // total  ->
//   nothing        MD partial{-3.0e38f, 0.0f};  ->  MD partial{0.0f, 0.0f};  : as good, for these numbers
//   nothing        MD partial{-3.0e38f, 0.0f};  ->  MD partial;  : no number that may be there does harm, but a NaN would
//   UNINIT-SHARED  if (threadIdx.x % 32 == 0) warps  ->  if (threadIdx.x < 4) warps
//   OOB-INDEX      w < THREADS / 32; w++  ->  w <= THREADS / 32; w++
//   RACE           y += blockIdx.x * V;  ->
//   OOB-GLOBAL     i < V; i += THREADS) y[i]  ->  i <= V; i += THREADS) y[i]
