// Matrix products:  c = a b (+ bias)       c_mn = sum_k a_mk b_kn (+ bias)
//
// For linear and matmul.  minigrad/ops/_gemm.py chooses among the three that multiply: which sizes are small, and which
// way does b lie in memory?
//     gemm_tiles      a block makes a tile of 64 x 64, from tiles of a and b in shared memory; a thread 4 x 4 of it
//     gemm_skinny_k   c has at most 8 rows, b lies along k (w of y = x w^T): a warp makes one column of c
//     gemm_skinny_n   c has at most 8 rows, b lies along n (w of dx = dy w): a block makes 32 columns of c
//     column_sums     y_n = sum_m x_mn: a bias's gradient, and the sum of the pieces of a split product
//
// a_m is the step in memory, in elements, from one m to the next; so are a_k, b_k, b_n, c_m, c_n.  A transposed matrix
// is one with its steps exchanged.  `batch` has the steps of a (array 0) and b (array 1) along the batch axes, 0 where
// one is repeated; the matrices of c follow one another without gaps.  blockIdx.x counts the blocks of the first matrix,
// then those of the second, and so on: z is the number in the batch.
//
// A long sum over k may be cut in pieces: blockIdx.y is the number of a piece, each has `piece` of the k, and a c of its
// own; column_sums adds them.  All sums are made in an order that depends on nothing but the sizes.
//
// Sizes and steps have 64 bits: a matrix, and one side of it alone, may have 2^31 elements and more.
//
// T: the element type, of 4 or 8 bytes.

// What sums are made in.  Integers wrap around, as in NumPy; in C only unsigned ones may.
__device__ float sum_type(float);
__device__ double sum_type(double);
__device__ unsigned sum_type(int);  // and all smaller ones
__device__ unsigned sum_type(unsigned);
__device__ unsigned long long sum_type(long long);
__device__ unsigned long long sum_type(unsigned long long);
typedef decltype(sum_type(T())) SUM;

#define NO_BIAS 0
#define BIAS_ALONG_N 1  // one for each column of c
#define BIAS_ALONG_M 2  // one for each row: the product is computed transposed

// What is added to c_mn; only the first piece of a split sum adds it.
__device__ __forceinline__ SUM bias_of(const T* bias, int bias_along, long long m, long long n) {
    if (bias_along == NO_BIAS || blockIdx.y > 0) return SUM(0);
    return (SUM)bias[bias_along == BIAS_ALONG_N ? n : m];
}

// ---------------------------------------------------------------- tiles

#define TILE 64    // rows and columns of c that a block makes
#define TILE_K 16  // how much of k is in shared memory at a time
#define EACH 4     // rows, and columns, of c that a thread makes
// Columns added to the rows of a shared tile, so that the 32 elements that a warp stores in it fall into 32 banks.
#define PAD (sizeof(T) == 8 ? 2 : 4)

// 16 bytes, read and written at once.
#define WIDTH (int)(16 / sizeof(T))
struct alignas(16) Vector {
    T value[WIDTH];
};

// Which of the TILE rows (or columns) of c is number i of the EACH that thread t of 16 makes: neighbouring threads have
// neighbouring vectors, which so come from different banks.
__device__ __forceinline__ int place(int t, int i) { return (i / WIDTH * (TILE / EACH) + t) * WIDTH + i % WIDTH; }

// tile[k][i] = x_ik, where x lies at `x` with steps x_i and x_k; 0 beyond `count` and `count_k`.  A warp reads 4 times 8
// neighbours if x lies along k, else 32: whole sectors of 32 bytes either way.
__device__ __forceinline__ void load_tile(T (*tile)[TILE + PAD], const T* x, long long x_i, long long x_k,
                                          long long count, int count_k) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int i0 = x_k == 1 ? warp * 4 + lane / 8 : lane, k0 = x_k == 1 ? lane % 8 : warp;
#pragma unroll
    for (int i = i0; i < i0 + TILE; i += WARP)
#pragma unroll
        for (int k = k0; k < k0 + TILE_K; k += TILE_K / 2)
            tile[k][i] = i < count && k < count_k ? x[i * x_i + k * x_k] : T(0);
}

// sums_ij += sum_k tile_a[k][place(row, i)] tile_b[k][place(column, j)]
__device__ __forceinline__ void multiply_tiles(SUM (&sums)[EACH][EACH], const T (*tile_a)[TILE + PAD],
                                               const T (*tile_b)[TILE + PAD], int row, int column, int count_k) {
#pragma unroll
    for (int k = 0; k < count_k; k++) {
        Vector a[EACH / WIDTH], b[EACH / WIDTH];
#pragma unroll
        for (int i = 0; i < EACH; i += WIDTH) {
            a[i / WIDTH] = *(const Vector*)&tile_a[k][place(row, i)];
            b[i / WIDTH] = *(const Vector*)&tile_b[k][place(column, i)];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++)
                sums[i][j] += (SUM)a[i / WIDTH].value[i % WIDTH] * (SUM)b[j / WIDTH].value[j % WIDTH];
    }
}

extern "C" __global__ __launch_bounds__(256) void gemm_tiles(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    long long M, long long N, long long K, long long c_m, long long c_n, long long a_m, long long a_k, long long b_k,
    long long b_n, long long piece, long long batches, Layout batch) {
    alignas(16) __shared__ T tile_a[TILE_K][TILE + PAD];
    alignas(16) __shared__ T tile_b[TILE_K][TILE + PAD];
    long long tiles_m = (M + TILE - 1) / TILE, tiles = tiles_m * ((N + TILE - 1) / TILE);
    long long z = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    long long m0 = tile % tiles_m * TILE, n0 = tile / tiles_m * TILE;
    long long k_begin = blockIdx.y * piece, k_end = K - k_begin < piece ? K : k_begin + piece;
    a += offset_of(batch, 0, z) + m0 * a_m;
    b += offset_of(batch, 1, z) + n0 * b_n;
    c += (blockIdx.y * batches + z) * M * N;
    int row = threadIdx.x / (TILE / EACH), column = threadIdx.x % (TILE / EACH);  // 16 x 16 threads
    SUM sums[EACH][EACH] = {};
    for (long long k = k_begin; k < k_end; k += TILE_K) {
        int count_k = k_end - k < TILE_K ? (int)(k_end - k) : TILE_K;
        load_tile(tile_a, a + k * a_k, a_m, a_k, M - m0, count_k);
        load_tile(tile_b, b + k * b_k, b_n, b_k, N - n0, count_k);
        __syncthreads();
        if (count_k == TILE_K)
            multiply_tiles(sums, tile_a, tile_b, row, column, TILE_K);  // a constant: the loop is unrolled
        else
            multiply_tiles(sums, tile_a, tile_b, row, column, count_k);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        long long m = m0 + place(row, i);
        if (m >= M) break;
#pragma unroll
        for (int j0 = 0; j0 < EACH; j0 += WIDTH) {
            long long n = n0 + place(column, j0);
            T* to = c + m * c_m + n;  // c_n is 1: it is the other kernels that may make c^T
            bool at_once = n + WIDTH <= N && (unsigned long long)to % sizeof(Vector) == 0;
            Vector made;
#pragma unroll
            for (int j = 0; j < WIDTH; j++) {
                if (n + j >= N) break;
                made.value[j] = (T)(sums[i][j0 + j] + bias_of(bias, bias_along, m, n + j));
                if (!at_once) to[j] = made.value[j];
            }
            if (at_once) *(Vector*)to = made;
        }
    }
}

// ---------------------------------------------------------------- few rows

// Both kernels read every element of b once, which is what such a product costs; the few rows of a are in shared memory,
// SPAN of the k at a time.
#define ROWS 8  // most rows of c, and warps of a block; loops over rows are unrolled, to keep the sums in registers
#define SPAN 256

// span[m][k] = a_mk for the M rows and `count` of the k
__device__ __forceinline__ void load_rows(T (*span)[SPAN], const T* a, long long a_m, long long a_k, int M, int count) {
    for (int m = 0; m < M; m++)
        for (int k = threadIdx.x; k < count; k += 256) span[m][k] = a[m * a_m + k * a_k];
}

// sums_m += sum_k span[m][k] b_k over k = first, first + STEP, ... below count
template <int STEP>
__device__ __forceinline__ void multiply_rows(SUM (&sums)[ROWS], const T (*span)[SPAN], const T* b, long long b_k, int M,
                                              int first, int count) {
#pragma unroll 4
    for (int k = first; k < count; k += STEP) {
        SUM b_kn = b[k * b_k];
#pragma unroll
        for (int m = 0; m < ROWS; m++)
            if (m < M) sums[m] += (SUM)span[m][k] * b_kn;
    }
}

extern "C" __global__ __launch_bounds__(256) void gemm_skinny_k(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    long long M, long long N, long long K, long long c_m, long long c_n, long long a_m, long long a_k, long long b_k,
    long long b_n, long long piece, long long batches, Layout batch) {
    __shared__ T span[ROWS][SPAN];
    int lane = threadIdx.x % WARP;
    long long blocks = (N + ROWS - 1) / ROWS, z = blockIdx.x / blocks;
    long long n = blockIdx.x % blocks * ROWS + threadIdx.x / WARP;
    long long k_begin = blockIdx.y * piece, k_end = K - k_begin < piece ? K : k_begin + piece;
    a += offset_of(batch, 0, z);
    b += offset_of(batch, 1, z) + n * b_n;
    SUM sums[ROWS] = {};
    for (long long k = k_begin; k < k_end; k += SPAN) {
        int count = k_end - k < SPAN ? (int)(k_end - k) : SPAN;
        load_rows(span, a + k * a_k, a_m, a_k, (int)M, count);
        __syncthreads();
        if (n < N) multiply_rows<WARP>(sums, span, b + k * b_k, b_k, (int)M, lane, count);  // every lane one k in 32
        __syncthreads();
    }
    if (n >= N) return;  // the whole warp, and no barrier follows
    c += (blockIdx.y * batches + z) * M * N + n * c_n;
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
        if (m >= M) break;
        SUM sum = warp_sum(sums[m]);
        if (lane == m) c[m * c_m] = (T)(sum + bias_of(bias, bias_along, m, n));
    }
}

extern "C" __global__ __launch_bounds__(256) void gemm_skinny_n(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    long long M, long long N, long long K, long long c_m, long long c_n, long long a_m, long long a_k, long long b_k,
    long long b_n, long long piece, long long batches, Layout batch) {
    __shared__ T span[ROWS][SPAN];
    __shared__ SUM parts[ROWS][ROWS][WARP];  // of each warp, for each row and column
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long blocks = (N + WARP - 1) / WARP, z = blockIdx.x / blocks;
    long long n = blockIdx.x % blocks * WARP + lane;
    long long k_begin = blockIdx.y * piece, k_end = K - k_begin < piece ? K : k_begin + piece;
    a += offset_of(batch, 0, z);
    b += offset_of(batch, 1, z) + n * b_n;
    SUM sums[ROWS] = {};
    for (long long k = k_begin; k < k_end; k += SPAN) {
        int count = k_end - k < SPAN ? (int)(k_end - k) : SPAN;
        load_rows(span, a + k * a_k, a_m, a_k, (int)M, count);
        __syncthreads();
        if (n < N) multiply_rows<ROWS>(sums, span, b + k * b_k, b_k, (int)M, warp, count);  // every warp one k in 8
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++)
        if (m < M) parts[warp][m][lane] = sums[m];
    __syncthreads();
    int m = warp;  // and now every warp takes one row
    if (m < M && n < N) {
        SUM sum = 0;
        for (int other = 0; other < ROWS; other++) sum += parts[other][m][lane];
        c += (blockIdx.y * batches + z) * M * N;
        c[m * c_m + n * c_n] = (T)(sum + bias_of(bias, bias_along, m, n));
    }
}

// ---------------------------------------------------------------- sums of columns

// A block sums 32 columns: every warp takes one row in ROWS, then the first warp adds what the others found.
// blockIdx.y: the number of a piece of the rows, each with `piece` of them and a y of its own.
extern "C" __global__ __launch_bounds__(256) void column_sums(T* __restrict__ y, const T* __restrict__ x, long long M,
                                                              long long N, long long x_m, long long x_n,
                                                              long long piece) {
    __shared__ SUM parts[ROWS][WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long n = (long long)blockIdx.x * WARP + lane;
    long long m_begin = blockIdx.y * piece, m_end = M - m_begin < piece ? M : m_begin + piece;
    SUM sum = 0;
    if (n < N) {
#pragma unroll 4
        for (long long m = m_begin + warp; m < m_end; m += ROWS) sum += (SUM)x[m * x_m + n * x_n];
    }
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && n < N) {
        for (int other = 1; other < ROWS; other++) sum += parts[other][lane];
        y[blockIdx.y * N + n] = (T)sum;
    }
}
