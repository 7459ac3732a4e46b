// python -m minigrad.cudasim tiled_gemm.cu -D TILE_WIDTH=8 --grid 3x2 --block 8x8 M=normal:13x19 N=normal:19x21 P=empty:13x21 Height=13 Inner=19 Width=21 --expect reference.py:tiled_gemm
#include <cuda_runtime.h>

#ifndef TILE_WIDTH
#define TILE_WIDTH 16
#endif

__global__ void tiled_gemm(float* M, float* N, float* P, int Height, int Inner, int Width) {
    __shared__ float Mds[TILE_WIDTH][TILE_WIDTH];
    __shared__ float Nds[TILE_WIDTH][TILE_WIDTH];
    int bx = blockIdx.x; int by = blockIdx.y;
    int tx = threadIdx.x; int ty = threadIdx.y;
    int Row = by * TILE_WIDTH + ty;
    int Col = bx * TILE_WIDTH + tx;
    float Pvalue = 0;
    for (int ph = 0; ph < ceil(Inner / (float)TILE_WIDTH); ++ph) {
        if ((Row < Height) && (ph * TILE_WIDTH + tx) < Inner)
            Mds[ty][tx] = M[Row * Inner + ph * TILE_WIDTH + tx];
        else
            Mds[ty][tx] = 0.0f;
        if ((ph * TILE_WIDTH + ty) < Inner && Col < Width)
            Nds[ty][tx] = N[(ph * TILE_WIDTH + ty) * Width + Col];
        else
            Nds[ty][tx] = 0.0f;
        __syncthreads();  // loaded
        for (int k = 0; k < TILE_WIDTH; ++k) {
            Pvalue += Mds[ty][k] * Nds[k][tx];
        }
        __syncthreads();  // used
    }
    if ((Row < Height) && (Col < Width))
        P[Row * Width + Col] = Pvalue;
}

// Mistakes, and what is found of them:
//   RACE               __syncthreads();  // loaded  ->
//   RACE               __syncthreads();  // used  ->
//   UNINIT-LOCAL       float Pvalue = 0;  ->  float Pvalue;
//   UNINIT-SHARED      else\n            Nds[ty][tx] = 0.0f;\n  ->
//   OOB-GLOBAL         && (ph * TILE_WIDTH + tx) < Inner)  ->  )
//   WRONG              ceil(Inner / (float)TILE_WIDTH)  ->  Inner / TILE_WIDTH
//   OOB-GLOBAL         if ((Row < Height) && (Col < Width))\n  ->  if (Row < Height)\n
//   OOB-INDEX          k < TILE_WIDTH; ++k  ->  k <= TILE_WIDTH; ++k
//   DIVERGENT-BARRIER  float Pvalue = 0;  ->  if (Row >= Height || Col >= Width) return;\n    float Pvalue = 0;
