// python -m minigrad.cudasim histogram.cu --grid 3x4 --block 16x4 image=integers:14x40:0:256 hist=zeros:64 width=37 height=14 pitch=40 --expect reference.py:histogram
#include <cuda_runtime.h>
#include <stdint.h>

#define BINS 64
typedef unsigned char uchar;

__global__ void histogram(const uchar* __restrict__ image, uint32_t* hist, const int width, const int height, int pitch) {
    __shared__ unsigned int local[BINS];
    const int tid = threadIdx.y * blockDim.x + threadIdx.x;
    for (int bin = tid; bin < BINS; bin += blockDim.x * blockDim.y) local[bin] = 0;
    __syncthreads();  // cleared
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) atomicAdd(&local[image[y * pitch + x] >> 2], 1u);
    __syncthreads();  // counted
    for (int bin = tid; bin < BINS; bin += blockDim.x * blockDim.y)
        if (local[bin]) atomicAdd(hist + bin, local[bin]);
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();  // cleared  ->
//   RACE           __syncthreads();  // counted  ->
//   RACE           atomicAdd(&local[image[y * pitch + x] >> 2], 1u)  ->  local[image[y * pitch + x] >> 2]++
//   RACE           atomicAdd(hist + bin, local[bin])  ->  hist[bin] += local[bin]
//   OOB-INDEX      >> 2], 1u)  ->  >> 1], 1u)
//   OOB-GLOBAL     x < width && y < height  ->  x < width
//   UNINIT-SHARED  local[bin] = 0;  ->  ;
//   WRONG          y * pitch + x  ->  y * width + x
