// python -m minigrad.cudasim transpose.cu --template double --grid 2x2 --block 32x8 idata=normal:40x50 odata=empty:50x40 width=50 height=40 --expect reference.py:transpose
#include <cuda_runtime.h>

const int TILE_DIM = 32, BLOCK_ROWS = 8;

template <typename T>
__global__ void transpose(T* odata, const T* idata, int width, int height) {
    __shared__ T tile[TILE_DIM][TILE_DIM + 1];
    int x = blockIdx.x * TILE_DIM + threadIdx.x;
    int y = blockIdx.y * TILE_DIM + threadIdx.y;
    for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
        if (x < width && y + j < height) tile[threadIdx.y + j][threadIdx.x] = idata[(y + j) * width + x];
    __syncthreads();
    x = blockIdx.y * TILE_DIM + threadIdx.x;
    y = blockIdx.x * TILE_DIM + threadIdx.y;
    for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
        if (x < height && y + j < width) odata[(y + j) * height + x] = tile[threadIdx.x][threadIdx.y + j];
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();\n  ->
//   UNINIT-SHARED  tile[threadIdx.x][threadIdx.y + j];  ->  tile[threadIdx.y + j][threadIdx.x];
//   UNINIT-SHARED  if (x < height && y + j < width) odata  ->  if (x < width && y + j < height) odata
//   OOB-GLOBAL     if (x < height && y + j < width) odata  ->  odata
//   OOB-GLOBAL     odata[(y + j) * height + x]  ->  odata[(y + j) * width + x]
//   UNINIT-SHARED  j += BLOCK_ROWS)\n        if (x < width  ->  j += 2 * BLOCK_ROWS)\n        if (x < width
