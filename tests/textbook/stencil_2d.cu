// python -m minigrad.cudasim stencil_2d.cu --grid 3x3 --block 16x16 --variable c_coef=[1,2,-4,8,3] in=normal:30x30 out=empty:30x30 N=30 --expect reference.py:stencil_2d
#include <cuda_runtime.h>

#define IN_TILE 16
#define RADIUS 2
#define OUT_TILE (IN_TILE - 2 * RADIUS)
__constant__ float c_coef[2 * RADIUS + 1];

// A cross of coefficients around each cell; the border is copied.
__global__ void stencil_2d(const float* in, float* out, unsigned N) {
    __shared__ float s[IN_TILE][IN_TILE];
    int row = blockIdx.y * OUT_TILE + threadIdx.y - RADIUS;
    int col = blockIdx.x * OUT_TILE + threadIdx.x - RADIUS;
    bool inside = row >= 0 && row < N && col >= 0 && col < N;
    s[threadIdx.y][threadIdx.x] = inside ? in[row * N + col] : 0.0f;
    __syncthreads();
    if (!inside || threadIdx.x < RADIUS || threadIdx.x >= IN_TILE - RADIUS || threadIdx.y < RADIUS ||
        threadIdx.y >= IN_TILE - RADIUS)
        return;
    float result = c_coef[RADIUS] * s[threadIdx.y][threadIdx.x];
    for (int d = -RADIUS; d <= RADIUS; d++) {
        if (d == 0) continue;
        result += c_coef[RADIUS + d] * (s[threadIdx.y + d][threadIdx.x] + s[threadIdx.y][threadIdx.x + d]);
    }
    out[row * N + col] = result;
}

// Mistakes, and what is found of them:
//   RACE        __syncthreads();\n  ->
//   OOB-INDEX   threadIdx.x >= IN_TILE - RADIUS ||  ->
//   OOB-INDEX   threadIdx.y < RADIUS ||  ->
//   OOB-GLOBAL  row >= 0 && row < N && col >= 0 && col < N;  ->  row >= 0 && col >= 0 && col < N;
//   nothing     row >= 0 && row < N && col >= 0 && col < N;  ->  row < N && col >= 0 && col < N;  : N is unsigned: a row of -1 is a large one
//   OOB-INDEX   d <= RADIUS; d++  ->  d <= RADIUS + 1; d++
//   WRONG       #define OUT_TILE (IN_TILE - 2 * RADIUS)  ->  #define OUT_TILE IN_TILE - 2 * RADIUS
//   OOB-GLOBAL  inside ? in[row * N + col] : 0.0f;  ->  in[row * N + col];
