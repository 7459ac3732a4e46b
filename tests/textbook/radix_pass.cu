// python -m minigrad.cudasim radix_pass.cu --grid 2 --block 256 in=integers:512:0:256 out=empty:512 iter=3 --expect reference.py:radix_pass
#include <cuda_runtime.h>

// One pass of a radix sort in a block: elements whose bit is 0 first, both in their order.
__device__ unsigned int warpScan(unsigned int x) {
    const unsigned int lane = threadIdx.x & 31;
    for (int i = 1; i < 32; i <<= 1) {
        unsigned int y = __shfl_up_sync(0xffffffffu, x, i);
        if (lane >= i) x += y;
    }
    return x;
}

__global__ void radix_pass(const unsigned int* in, unsigned int* out, int iter) {
    __shared__ unsigned int warpSums[8];
    __shared__ unsigned int totalOnes;
    unsigned int key = in[blockIdx.x * 256 + threadIdx.x];
    unsigned int bit = (key >> iter) & 1;
    unsigned int scanned = warpScan(bit);
    unsigned int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 31) warpSums[warp] = scanned;
    __syncthreads();  // sums are there
    if (threadIdx.x < 32) {
        unsigned int v = threadIdx.x < 8 ? warpSums[threadIdx.x] : 0;
        v = warpScan(v);
        if (threadIdx.x < 8) warpSums[threadIdx.x] = v;
        if (threadIdx.x == 7) totalOnes = v;
    }
    __syncthreads();  // sums are summed up
    unsigned int onesBefore = scanned - bit + (warp > 0 ? warpSums[warp - 1] : 0);
    unsigned int dst = bit == 0 ? threadIdx.x - onesBefore : 256 - totalOnes + onesBefore;
    out[blockIdx.x * 256 + dst] = key;
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();  // sums are there  ->
//   RACE           __syncthreads();  // sums are summed up  ->
//   OOB-GLOBAL     threadIdx.x % 32 == 31  ->  threadIdx.x % 32 == 0
//   OOB-INDEX      (warp > 0 ? warpSums[warp - 1] : 0)  ->  warpSums[warp - 1]
//   WARP-DEADLOCK  if (threadIdx.x < 32) {  ->  if (threadIdx.x < 8) {
//   OOB-INDEX      threadIdx.x < 8 ? warpSums[threadIdx.x] : 0  ->  warpSums[threadIdx.x]
//   OOB-GLOBAL     scanned - bit +  ->  scanned +
