// python -m minigrad.cudasim last_block_sum.cu --order forward --grid 4 --block 64 array=normal:250 N=250 result=empty:4 --expect reference.py:last_block_sum
#include <cuda_runtime.h>

__device__ unsigned int count = 0;
__shared__ bool isLastBlockDone;

__device__ float calculatePartialSum(const float* array, unsigned int N) {
    __shared__ float partial[64];
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    partial[threadIdx.x] = i < N ? array[i] : 0.0f;
    __syncthreads();
    for (unsigned int s = blockDim.x / 2; s > 0; s >>= 1) {
        if (threadIdx.x < s) partial[threadIdx.x] += partial[threadIdx.x + s];
        __syncthreads();  // round
    }
    return partial[0];
}

__global__ void last_block_sum(const float* array, unsigned int N, volatile float* result) {
    float partialSum = calculatePartialSum(array, N);
    if (threadIdx.x == 0) {
        result[blockIdx.x] = partialSum;
        __threadfence();
        unsigned int value = atomicInc(&count, gridDim.x);
        isLastBlockDone = (value == (gridDim.x - 1));
    }
    __syncthreads();  // last?
    if (isLastBlockDone) {
        if (threadIdx.x == 0) {
            float totalSum = 0;
            for (int b = 0; b < gridDim.x; b++) totalSum += result[b];
            result[0] = totalSum;
            count = 0;
        }
    }
}

// Mistakes, and what is found of them:
//   RACE          __threadfence();\n  ->
//   RACE          __syncthreads();  // last?  ->
//   RACE          __syncthreads();  // round  ->
//   OOB-GLOBAL    i < N ? array[i] : 0.0f  ->  array[i]
//   UNINIT-LOCAL  float totalSum = 0;  ->  float totalSum;
//   WRONG         value == (gridDim.x - 1)  ->  value == gridDim.x
