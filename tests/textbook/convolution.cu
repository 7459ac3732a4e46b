// python -m minigrad.cudasim convolution.cu --grid 2x3x2 --block 8x8 N=normal:2x20x15 P=empty:2x20x15 width=15 height=20 --variable filter_c=[[1,2,3],[-4,5,6],[7,8,-9]] --expect reference.py:convolution
#include <cuda_runtime.h>

#define FILTER_RADIUS 1
#define FILTER (2 * FILTER_RADIUS + 1)
#define OUT_TILE_DIM 8
#define IN_TILE_DIM (OUT_TILE_DIM + FILTER - 1)
__constant__ float filter_c[FILTER][FILTER];

// Channels in z; the whole input tile is loaded by OUT_TILE_DIM^2 threads in turns.
__global__ void convolution(const float* __restrict__ N, float* __restrict__ P, int width, int height) {
    __shared__ float N_s[IN_TILE_DIM * IN_TILE_DIM];
    const int plane = blockIdx.z * width * height;
    const int x0 = blockIdx.x * OUT_TILE_DIM - FILTER_RADIUS, y0 = blockIdx.y * OUT_TILE_DIM - FILTER_RADIUS;
    for (int e = threadIdx.y * blockDim.x + threadIdx.x; e < IN_TILE_DIM * IN_TILE_DIM; e += blockDim.x * blockDim.y) {
        int y = y0 + e / IN_TILE_DIM, x = x0 + e % IN_TILE_DIM;
        bool inside = 0 <= x && x < width && 0 <= y && y < height;
        N_s[e] = inside ? N[plane + y * width + x] : 0.f;
    }
    __syncthreads();
    int col = blockIdx.x * OUT_TILE_DIM + threadIdx.x, row = blockIdx.y * OUT_TILE_DIM + threadIdx.y;
    if (col >= width || row >= height) return;
    float Pvalue = 0.0f;
    for (int fRow = 0; fRow < FILTER; fRow++)
        for (int fCol = 0; fCol < FILTER; fCol++)
            Pvalue += filter_c[fRow][fCol] * N_s[(threadIdx.y + fRow) * IN_TILE_DIM + threadIdx.x + fCol];
    P[plane + row * width + col] = Pvalue;
}

// Mistakes, and what is found of them:
//   RACE           __syncthreads();\n  ->
//   UNINIT-SHARED  e < IN_TILE_DIM * IN_TILE_DIM;  ->  e < OUT_TILE_DIM * OUT_TILE_DIM;
//   OOB-GLOBAL     && y < height;  ->  ;
//   OOB-INDEX      fRow < FILTER;  ->  fRow <= FILTER;
//   OOB-INDEX      #define IN_TILE_DIM (OUT_TILE_DIM + FILTER - 1)  ->  #define IN_TILE_DIM OUT_TILE_DIM
//   UNINIT-LOCAL   float Pvalue = 0.0f;  ->  float Pvalue;
//   OOB-GLOBAL     if (col >= width || row >= height) return;\n  ->
//   WRONG          const int plane = blockIdx.z * width * height;  ->  const int plane = 0;
