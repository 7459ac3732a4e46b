// The ladder of matrix products, step 4: matrix units.  The formula is that of step 1, but that the factors are rounded
// to TF32, with 10 bits of mantissa: results are right to about three decimals.
//
// A matrix unit is told to multiply 16 x 8 by 8 x 8 numbers by one instruction of a whole warp, multiply_add_tf32 of
// kernels/instructions.cuh: 1024 multiplications, where step 3 needs 32 instructions of a warp for as many.  For it
// each lane brings its fragments, 4 numbers of a and 2 of b, and gets 4 sums; docs/cuda.md has a picture.
//
// A block of 8 warps computes a tile of 64 x 64 numbers of c, each warp 32 x 16 of them as 2 x 2 such products: for
// every 8 of the k a lane reads 2 x 4 numbers of a and 2 x 2 of b from shared memory, for 4 products.
//
// So fast a multiplication would wait for memory most of the time.  Therefore tiles have two buffers in turn: while one
// is multiplied, asynchronous copies fill the other.  What lies beyond a or b is copied as zeros.
//
// The lanes of a warp read 8 rows x 4 columns of tile_a at once, and 4 x 8 of tile_b.  Rows of 32 + 4 words and of
// 64 + 8 words put these 32 numbers in the 32 different banks of shared memory.
//
// What it costs: 13 of the 23 bits of the factors' mantissas.  And the tiles of two buffers are 36 KB of shared memory.
//
// What kernels/gemm.cu does besides: its tiles, steps and parts are those named in step 3.

#include "instructions.cuh"

#define WARPS 8
#define TILE 64
#define DEPTH 32  // one k for each lane

extern "C" __global__ __launch_bounds__(WARP * WARPS) void gemm_tf32(
    const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int M, int N, int K) {
    __shared__ float tile_a[2][TILE][DEPTH + 4], tile_b[2][DEPTH][TILE + 8];  // [m][k], [k][n]
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int first_m = blockIdx.y * TILE, first_n = blockIdx.x * TILE;

    auto fetch = [&](int buffer, int first) {  // the tiles from k = first on; they are there after a wait
        for (int i = warp; i < TILE; i += WARPS) {
            int m = first_m + i, k = first + lane;
            copy_async<4>(&tile_a[buffer][i][lane], &a[(long long)m * K + k], m < M && k < K);
        }
        for (int i = warp; i < DEPTH; i += WARPS)
            for (int j = lane; j < TILE; j += WARP) {
                int k = first + i, n = first_n + j;
                copy_async<4>(&tile_b[buffer][i][j], &b[(long long)k * N + n], k < K && n < N);
            }
        copy_async_commit();
    };

    const int row = warp / 4 * 32, column = warp % 4 * 16;  // in the tile, of what this warp computes
    float sum[2][2][4] = {};
    fetch(0, 0);
    for (int first = 0, now = 0; first < K; first += DEPTH, now ^= 1) {
        copy_async_wait<0>();
        __syncthreads();  // the tiles are there, and nobody reads the other buffer any more
        if (first + DEPTH < K) fetch(now ^ 1, first + DEPTH);

        for (int t = 0; t < DEPTH; t += 8) {
            float of_a[2][4], of_b[2][2];
            for (int i = 0; i < 2; i++)
                for (int e = 0; e < 4; e++) {
                    int m = row + i * 16 + lane / 4 + e % 2 * 8, k = t + lane % 4 + e / 2 * 4;
                    of_a[i][e] = tf32(tile_a[now][m][k]);
                }
            for (int j = 0; j < 2; j++)
                for (int e = 0; e < 2; e++) {
                    int k = t + lane % 4 + e * 4, n = column + j * 8 + lane / 4;
                    of_b[j][e] = tf32(tile_b[now][k][n]);
                }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) multiply_add_tf32(sum[i][j], of_a[i], of_b[j]);
        }
    }

    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            for (int e = 0; e < 4; e++) {
                int m = first_m + row + i * 16 + lane / 4 + e / 2 * 8;
                int n = first_n + column + j * 8 + lane % 4 * 2 + e % 2;
                if (m < M && n < N) c[(long long)m * N + n] = sum[i][j][e];
            }
}
