// The ladder of matrix products, step 3: a block of numbers in the registers of each thread.  The formula is that of
// step 1.
//
// A block of 16 x 16 threads computes a tile of 64 x 64 numbers of c, 4 x 4 a thread.  For each k a thread reads 4
// numbers of a and 4 of b from shared memory, and multiplies each with each: 16 multiplications for 8 reads, where
// step 2 had 1 for 2.  And a number that was read from memory is used 64 times, not 16.
//
// A thread's rows, and its columns, are 16 apart, not neighbours: so threads side by side read words side by side, each
// from another of the 32 banks of shared memory.  Rows of tile_b have 16 words more than they need: a warp is two rows
// of 16 threads, and what these write then lies in different banks.
//
// What it costs: registers, 16 of them for sums alone, so that fewer threads fit on a multiprocessor at a time; and
// tiles so large that a small c has few.
//
// What kernels/gemm.cu does besides (tile_product.cuh): where c is large enough, up to 8 x 8 numbers a thread, 64
// multiplications for 16 numbers, which are neighbours and read four at a time.  The next tiles are copied while these
// are multiplied, without a register in between.  It takes matrices by their steps in memory (a transposed one needs no
// copy), cuts long sums into parts where c is small, adds a bias, and has other kernels for a c of few rows.

#define SIDE 16  // threads along each side of a block
#define EACH 4   // numbers along each side of what a thread computes
#define TILE (SIDE * EACH)
#define DEPTH 16

extern "C" __global__ __launch_bounds__(SIDE * SIDE) void gemm_register_blocked(
    const REAL* __restrict__ a, const REAL* __restrict__ b, REAL* __restrict__ c, int M, int N, int K) {
    __shared__ REAL tile_a[TILE][DEPTH], tile_b[DEPTH][TILE + SIDE];  // [m][k], [k][n]
    const int tx = threadIdx.x, ty = threadIdx.y;
    const int first_m = blockIdx.y * TILE + ty, first_n = blockIdx.x * TILE + tx;  // the others: 16, 32, 48 further

    REAL sum[EACH][EACH] = {};
    for (int first = 0; first < K; first += DEPTH) {
        for (int i = 0; i < EACH; i++) {
            int k = first + tx, m = first_m + i * SIDE;
            tile_a[ty + i * SIDE][tx] = m < M && k < K ? a[(long long)m * K + k] : REAL(0);
        }
        for (int j = 0; j < EACH; j++) {
            int k = first + ty, n = first_n + j * SIDE;
            tile_b[ty][tx + j * SIDE] = k < K && n < N ? b[(long long)k * N + n] : REAL(0);
        }
        __syncthreads();

        for (int t = 0; t < DEPTH; t++) {
            REAL of_a[EACH], of_b[EACH];
            for (int i = 0; i < EACH; i++) of_a[i] = tile_a[ty + i * SIDE][t];
            for (int j = 0; j < EACH; j++) of_b[j] = tile_b[t][tx + j * SIDE];
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sum[i][j] += of_a[i] * of_b[j];
        }
        __syncthreads();
    }

    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            int m = first_m + i * SIDE, n = first_n + j * SIDE;
            if (m < M && n < N) c[(long long)m * N + n] = sum[i][j];
        }
}
