// python -m minigrad.cudasim spmv_csr.cu --grid 2 --block 96 row_ptr=[0,2,2,5,45,46] col_idx=integers:46:0:7 values=normal:46 x=normal:7 y=empty:5 rows=5 --expect reference.py:spmv_csr
#include <cuda_runtime.h>

struct CSRMatrix {
    const int* row_ptr;
    const int* col_idx;
    const float* values;
};

__device__ float row_times(const CSRMatrix& A, const float* x, int row, int lane) {
    float sum = 0.0f;
    const int begin = A.row_ptr[row], end = A.row_ptr[row + 1];
    for (int j = begin + lane; j < end; j += warpSize) sum += A.values[j] * __ldg(&x[A.col_idx[j]]);
    return sum;
}

// One warp per row.
__global__ void spmv_csr(const int* row_ptr, const int* col_idx, const float* values, const float* x, float* y, int rows) {
    CSRMatrix A{row_ptr, col_idx, values};
    const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / warpSize, lane = threadIdx.x % warpSize;
    if (warp >= rows) return;
    float sum = row_times(A, x, warp, lane);
    for (int offset = warpSize / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
    if (lane == 0) y[warp] = sum;
}

// Mistakes, and what is found of them:
//   OOB-GLOBAL    warp >= rows  ->  warp > rows
//   nothing       if (lane == 0) y[warp] = sum;  ->  y[warp] = sum;  : all lanes store the same
//   OOB-GLOBAL    j < end; j += warpSize  ->  j <= end; j += warpSize
//   UNINIT-LOCAL  float sum = 0.0f;  ->  float sum;
//   WARP-SOURCE   __shfl_xor_sync(0xffffffff,  ->  __shfl_xor_sync(0x0000ffff,
//   WRONG         __shfl_xor_sync(0xffffffff, sum, offset)  ->  __shfl_up_sync(0xffffffff, sum, offset)
//   WRONG         A.row_ptr[row], end = A.row_ptr[row + 1];  ->  A.row_ptr[row], end = A.row_ptr[row] + 1;
