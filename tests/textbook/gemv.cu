// python -m minigrad.cudasim gemv.cu --grid 2 --block 32x4 A=normal:7x90 x=normal:90 y=empty:7 M=7 K=90 --expect reference.py:gemv
#include <cuda_runtime.h>
#include <cuda_fp16.h>

// y = A x, a warp for a row, eight halves at a time; sums in float.
__global__ void gemv(const half* __restrict__ A, const half* __restrict__ x, half* __restrict__ y, int M, int K) {
    int lane = threadIdx.x, row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row < M) {
        float sum = 0.f;
        const half2* A2 = reinterpret_cast<const half2*>(A + (size_t)row * K);
        const half2* x2 = reinterpret_cast<const half2*>(x);
        for (int i = lane; i < K / 2; i += 32) {
            float2 a = __half22float2(A2[i]), b = __half22float2(x2[i]);
            sum += a.x * b.x + a.y * b.y;
        }
        if (K % 2 && lane == 0) sum += __half2float(A[row * K + K - 1]) * __half2float(x[K - 1]);
        for (int offset = 16; offset; offset >>= 1) sum += __shfl_down_sync(0xffffffff, sum, offset);
        if (!lane) y[row] = __float2half_rn(sum);
    }
}

// Mistakes, and what is found of them:
//   OOB-GLOBAL    if (row < M) {  ->  if (row <= M) {
//   MISALIGNED    A + (size_t)row * K);  ->  A + (size_t)row * K + 1);
//   UNINIT-LOCAL  float sum = 0.f;  ->  float sum;
//   OOB-GLOBAL    i < K / 2;  ->  i < K;
//   RACE          if (!lane) y[row]  ->  y[row]
//   WRONG         offset >>= 1) sum +=  ->  offset >>= 1) sum =
