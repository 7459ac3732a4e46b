// The ladder of matrix products, step 2: tiles in shared memory.  The formula is that of step 1.
//
// A block of 16 x 16 threads computes a tile of c, 16 x 16 numbers, one a thread.  It walks along k, 16 values at a
// time: each thread brings one number of a and one of b to shared memory, and finds there the 16 of either kind that
// it needs.  So a number that was read from memory is used by 16 threads, and memory is read a sixteenth as often.
//
// The first barrier waits until the tiles are complete, the second until nobody needs them any more.  All threads of
// the block must meet both, so those beyond the edge of c stay: they bring zeros, which change no sum, and write
// nothing.
//
// What it costs: still two reads for every multiplication, of shared memory now, which is nearer; and two barriers for
// every 16.  Step 3 keeps more of what it has read in registers.

#define TILE 16

extern "C" __global__ __launch_bounds__(TILE * TILE) void gemm_tiled(
    const REAL* __restrict__ a, const REAL* __restrict__ b, REAL* __restrict__ c, int M, int N, int K) {
    __shared__ REAL tile_a[TILE][TILE], tile_b[TILE][TILE];  // [m][k], [k][n]
    const int tx = threadIdx.x, ty = threadIdx.y;
    const int m = blockIdx.y * TILE + ty, n = blockIdx.x * TILE + tx;

    REAL sum = 0;
    for (int first = 0; first < K; first += TILE) {
        int k = first + tx;  // threads side by side along k: side by side in a
        tile_a[ty][tx] = m < M && k < K ? a[(long long)m * K + k] : REAL(0);
        k = first + ty;  // and along n: side by side in b
        tile_b[ty][tx] = k < K && n < N ? b[(long long)k * N + n] : REAL(0);
        __syncthreads();

        for (int t = 0; t < TILE; t++) sum += tile_a[ty][t] * tile_b[t][tx];
        __syncthreads();
    }
    if (m < M && n < N) c[(long long)m * N + n] = sum;
}
