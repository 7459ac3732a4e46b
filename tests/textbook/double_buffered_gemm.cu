// python -m minigrad.cudasim double_buffered_gemm.cu --template 32,32,8,4,4 --grid 2x1 --block 64 a=normal:32x24 b=normal:24x64 c=normal:32x64 M=32 N=64 K=24 alpha=0.5 beta=-1 --expect reference.py:double_buffered_gemm
#include <cuda_runtime.h>

#define OFFSET(row, col, ld) ((row) * (ld) + (col))
#define FLOAT4(value) (reinterpret_cast<float4*>(&(value))[0])

// C = alpha A B + beta C, of whole tiles; the next tile is in registers while this one is multiplied.
template <const int BM, const int BN, const int BK, const int TM, const int TN>
__global__ __launch_bounds__(BM * BN / (TM * TN)) void double_buffered_gemm(
    float* __restrict__ a, float* __restrict__ b, float* __restrict__ c, const int M, const int N, const int K,
    const float alpha, const float beta) {
    constexpr int THREADS = BM * BN / (TM * TN);
    __shared__ float s_a[2][BK][BM];
    __shared__ float s_b[2][BK][BN];
    const int tid = threadIdx.x, ty = tid / (BN / TN), tx = tid % (BN / TN);
    const int a_row = tid / (BK / 4), a_col = tid % (BK / 4) * 4;
    const int b_row = tid / (BN / 4), b_col = tid % (BN / 4) * 4;
    static_assert(THREADS * 4 == BM * BK && THREADS * 4 == BK * BN, "a thread loads four of each");
    float sums[TM][TN] = {0.0f};
    float4 next_a, next_b;

    a += OFFSET(blockIdx.y * BM, 0, K);
    b += blockIdx.x * BN;
    c += OFFSET(blockIdx.y * BM, blockIdx.x * BN, N);

    next_a = FLOAT4(a[OFFSET(a_row, a_col, K)]);
    s_a[0][a_col + 0][a_row] = next_a.x;
    s_a[0][a_col + 1][a_row] = next_a.y;
    s_a[0][a_col + 2][a_row] = next_a.z;
    s_a[0][a_col + 3][a_row] = next_a.w;
    FLOAT4(s_b[0][b_row][b_col]) = FLOAT4(b[OFFSET(b_row, b_col, N)]);
    __syncthreads();  // first
    int now = 0;
    for (int k0 = BK; k0 <= K; k0 += BK) {
        if (k0 < K) {
            next_a = FLOAT4(a[OFFSET(a_row, k0 + a_col, K)]);
            next_b = FLOAT4(b[OFFSET(k0 + b_row, b_col, N)]);
        }
        #pragma unroll
        for (int k = 0; k < BK; k++) {
            float r_a[TM], r_b[TN];
            for (int m = 0; m < TM; m++) r_a[m] = s_a[now][k][ty * TM + m];
            for (int n = 0; n < TN; n++) r_b[n] = s_b[now][k][tx * TN + n];
            for (int m = 0; m < TM; m++)
                for (int n = 0; n < TN; n++) sums[m][n] += r_a[m] * r_b[n];
        }
        if (k0 < K) {
            now ^= 1;
            s_a[now][a_col + 0][a_row] = next_a.x;
            s_a[now][a_col + 1][a_row] = next_a.y;
            s_a[now][a_col + 2][a_row] = next_a.z;
            s_a[now][a_col + 3][a_row] = next_a.w;
            FLOAT4(s_b[now][b_row][b_col]) = next_b;
            __syncthreads();  // next
        }
    }
    for (int m = 0; m < TM; m++)
        for (int n = 0; n < TN; n += 4) {
            float4 old = FLOAT4(c[OFFSET(ty * TM + m, tx * TN + n, N)]);
            old.x = alpha * sums[m][n] + beta * old.x;
            old.y = alpha * sums[m][n + 1] + beta * old.y;
            old.z = alpha * sums[m][n + 2] + beta * old.z;
            old.w = alpha * sums[m][n + 3] + beta * old.w;
            FLOAT4(c[OFFSET(ty * TM + m, tx * TN + n, N)]) = old;
        }
}

// Mistakes, and what is found of them:
//   RACE          __syncthreads();  // first  ->
//   RACE          __syncthreads();  // next  ->
//   RACE          now ^= 1;\n  ->
//   UNINIT-LOCAL  float sums[TM][TN] = {0.0f};  ->  float sums[TM][TN];
//   MISALIGNED    a_row = tid / (BK / 4), a_col = tid % (BK / 4) * 4  ->  a_row = tid / (BK / 4), a_col = tid % (BK / 4)
//   WRONG         k0 <= K; k0 += BK  ->  k0 < K; k0 += BK
//   MISALIGNED    b_col = tid % (BN / 4) * 4;  ->  b_col = tid % (BN / 4) * 4 + 1;
//   OOB-GLOBAL    if (k0 < K) {\n            next_a = FLOAT4(a[OFFSET(a_row, k0 + a_col, K)]);  ->  {\n            next_a = FLOAT4(a[OFFSET(a_row, k0 + a_col, K)]);
//   OOB-INDEX     m < TM; m++) r_a[m]  ->  m <= TM; m++) r_a[m]
