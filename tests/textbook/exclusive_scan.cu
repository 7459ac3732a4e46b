// python -m minigrad.cudasim exclusive_scan.cu --grid 2 --block 64 --shared 524 g_idata=integers:200 g_odata=empty:200 block_sums=empty:2 n=200 --expect reference.py:exclusive_scan
#include <cuda_runtime.h>

#define NUM_BANKS 32
#define LOG_NUM_BANKS 5
#define CONFLICT_FREE_OFFSET(n) ((n) >> LOG_NUM_BANKS)

// Blelloch's scan of 2 * blockDim.x elements in each block.
__global__ void exclusive_scan(float* g_odata, const float* g_idata, int n, float* block_sums) {
    extern __shared__ float temp[];
    int thid = threadIdx.x, m = 2 * blockDim.x, first = blockIdx.x * m, offset = 1;
    int ai = thid, bi = thid + m / 2;
    int bankOffsetA = CONFLICT_FREE_OFFSET(ai), bankOffsetB = CONFLICT_FREE_OFFSET(bi);
    temp[ai + bankOffsetA] = first + ai < n ? g_idata[first + ai] : 0.0f;
    temp[bi + bankOffsetB] = first + bi < n ? g_idata[first + bi] : 0.0f;
    for (int d = m >> 1; d > 0; d >>= 1) {  // up-sweep
        __syncthreads();  // up
        if (thid < d) {
            int ai = offset * (2 * thid + 1) - 1, bi = offset * (2 * thid + 2) - 1;
            ai += CONFLICT_FREE_OFFSET(ai);
            bi += CONFLICT_FREE_OFFSET(bi);
            temp[bi] += temp[ai];
        }
        offset *= 2;
    }
    if (thid == 0) {
        int last = m - 1 + CONFLICT_FREE_OFFSET(m - 1);
        block_sums[blockIdx.x] = temp[last];
        temp[last] = 0;
    }
    for (int d = 1; d < m; d *= 2) {  // down-sweep
        offset >>= 1;
        __syncthreads();  // down
        if (thid < d) {
            int ai = offset * (2 * thid + 1) - 1, bi = offset * (2 * thid + 2) - 1;
            ai += CONFLICT_FREE_OFFSET(ai);
            bi += CONFLICT_FREE_OFFSET(bi);
            float t = temp[ai];
            temp[ai] = temp[bi];
            temp[bi] += t;
        }
    }
    __syncthreads();  // before the results
    if (first + ai < n) g_odata[first + ai] = temp[ai + bankOffsetA];
    if (first + bi < n) g_odata[first + bi] = temp[bi + bankOffsetB];
}

// Mistakes, and what is found of them:
//   RACE        __syncthreads();  // up  ->
//   RACE        __syncthreads();  // down  ->
//   RACE        __syncthreads();  // before the results  ->
//   OOB-GLOBAL  first + bi < n ? g_idata[first + bi] : 0.0f  ->  g_idata[first + bi]
//   OOB-SHARED  #define CONFLICT_FREE_OFFSET(n) ((n) >> LOG_NUM_BANKS)  ->  #define CONFLICT_FREE_OFFSET(n) ((n) >> 4)
//   WRONG       temp[last] = 0;  ->
//   nothing     offset >>= 1;\n        __syncthreads();  // down  ->  __syncthreads();\n        offset >>= 1;  : a variable of the thread alone
