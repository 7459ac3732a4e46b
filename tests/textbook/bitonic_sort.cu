// python -m minigrad.cudasim bitonic_sort.cu --grid 2 --block 128 d_Key=integers:512:0:1000000000 d_Val=arange:512 arrayLength=256 dir=1 --expect reference.py:bitonic_sort
#include <cuda_runtime.h>

#define SHARED_SIZE_LIMIT 256U

__device__ inline void Comparator(uint& keyA, uint& valA, uint& keyB, uint& valB, uint dir) {
    if ((keyA > keyB) == dir) {
        uint t = keyA; keyA = keyB; keyB = t;
        t = valA; valA = valB; valB = t;
    }
}

__global__ void bitonic_sort(uint* d_Key, uint* d_Val, uint arrayLength, uint dir) {
    __shared__ uint s_key[SHARED_SIZE_LIMIT];
    __shared__ uint s_val[SHARED_SIZE_LIMIT];
    d_Key += blockIdx.x * SHARED_SIZE_LIMIT + threadIdx.x;
    d_Val += blockIdx.x * SHARED_SIZE_LIMIT + threadIdx.x;
    s_key[threadIdx.x] = d_Key[0];
    s_val[threadIdx.x] = d_Val[0];
    s_key[threadIdx.x + SHARED_SIZE_LIMIT / 2] = d_Key[SHARED_SIZE_LIMIT / 2];
    s_val[threadIdx.x + SHARED_SIZE_LIMIT / 2] = d_Val[SHARED_SIZE_LIMIT / 2];
    for (uint size = 2; size < arrayLength; size <<= 1) {
        uint ddd = dir ^ ((threadIdx.x & (size / 2)) != 0);
        for (uint stride = size / 2; stride > 0; stride >>= 1) {
            __syncthreads();  // runs
            uint pos = 2 * threadIdx.x - (threadIdx.x & (stride - 1));
            Comparator(s_key[pos], s_val[pos], s_key[pos + stride], s_val[pos + stride], ddd);
        }
    }
    for (uint stride = arrayLength / 2; stride > 0; stride >>= 1) {
        __syncthreads();  // merge
        uint pos = 2 * threadIdx.x - (threadIdx.x & (stride - 1));
        Comparator(s_key[pos], s_val[pos], s_key[pos + stride], s_val[pos + stride], dir);
    }
    __syncthreads();  // store
    d_Key[0] = s_key[threadIdx.x];
    d_Val[0] = s_val[threadIdx.x];
    d_Key[SHARED_SIZE_LIMIT / 2] = s_key[threadIdx.x + SHARED_SIZE_LIMIT / 2];
    d_Val[SHARED_SIZE_LIMIT / 2] = s_val[threadIdx.x + SHARED_SIZE_LIMIT / 2];
}

// Mistakes, and what is found of them:
//   RACE        __syncthreads();  // runs  ->
//   RACE        __syncthreads();  // merge  ->  if (stride >= 32) __syncthreads();
//   RACE        __syncthreads();  // store  ->
//   WRONG       (threadIdx.x & (size / 2)) != 0  ->  (threadIdx.x & size) != 0
//   OOB-SHARED  for (uint stride = arrayLength / 2;  ->  for (uint stride = arrayLength;
//   WRONG       uint& keyA, uint& valA, uint& keyB, uint& valB  ->  uint keyA, uint& valA, uint& keyB, uint& valB
//   OOB-INDEX   s_key[SHARED_SIZE_LIMIT];  ->  s_key[SHARED_SIZE_LIMIT / 2];
