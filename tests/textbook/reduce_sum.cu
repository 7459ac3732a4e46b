// python -m minigrad.cudasim reduce_sum.cu --template float,256 --grid 3 --block 256 --shared 1024 in=normal:1999 out=empty:3 n=1999 --expect reference.py:reduce_sum
#include <cuda_runtime.h>

template <typename T, unsigned int BLOCK>
__global__ void reduce_sum(const T* __restrict__ in, T* __restrict__ out, size_t n) {
    extern __shared__ __align__(sizeof(double)) unsigned char memory[];
    T* sdata = reinterpret_cast<T*>(memory);
    unsigned int tid = threadIdx.x;
    T sum = T(0);
    for (size_t i = blockIdx.x * (size_t)BLOCK + tid; i < n; i += (size_t)BLOCK * gridDim.x) sum += in[i];
    sdata[tid] = sum;
    __syncthreads();
    if (BLOCK >= 256) {
        if (tid < 128) sdata[tid] += sdata[tid + 128];
        __syncthreads();
    }
    if (BLOCK >= 128) {
        if (tid < 64) sdata[tid] += sdata[tid + 64];
        __syncthreads();  // before the warp
    }
    if (tid < 32) {
        T v = sdata[tid] + sdata[tid + 32];
        #pragma unroll
        for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_down_sync(0xffffffff, v, offset);
        if (tid == 0) out[blockIdx.x] = v;
    }
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();  // before the warp  ->
//   UNINIT-LOCAL   T sum = T(0);  ->  T sum;
//   OOB-GLOBAL     i < n;  ->  i <= n;
//   WARP-DEADLOCK  if (tid < 32) {  ->  if (tid < 16) {
//   WRONG          sdata[tid + 32];  ->  sdata[tid + 33];
//   RACE           if (tid < 64) sdata  ->  if (tid <= 64) sdata
