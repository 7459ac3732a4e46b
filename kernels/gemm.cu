// Matrix products:  c = a b (+ bias)       c_mn = sum_k a_mk b_kn (+ bias)
//
// For linear and matmul.  minigrad/ops/_gemm.py chooses among the three that multiply: which sizes are small, and which
// way does b lie in memory?
//     gemm_tiles      a block makes a tile of up to 128 x 128, from tiles of a and b in shared memory: tile_product.cuh
//     gemm_skinny_k   c has at most 8 rows, b lies along k (w of y = x w^T): a warp makes one column of c
//     gemm_skinny_n   c has at most 8 rows, b lies along n (w of dx = dy w): a block makes 32 columns of c
//     column_sums     y_n = sum_m x_mn: a bias's gradient, and the sum of the parts of a split product
//
// a_m is the step in memory, in elements, from one m to the next; so are a_k, b_k, b_n, c_m, c_n.  A transposed matrix
// is one with its steps exchanged.  `batch` has the steps of a (array 0) and b (array 1) along the batch axes, 0 where
// one is repeated; the matrices of c follow one another without gaps.  blockIdx.x counts the blocks of the first
// matrix, then those of the second, and so on: z is the number in the batch.
//
// A long sum over k may be cut into parts: blockIdx.y is the number of a part, each has `part` of the k, and a c of its
// own; column_sums adds them.  All sums are made in an order that depends on nothing but the sizes.
//
// Sizes and steps have 64 bits: a matrix, and one side of it alone, may have 2^31 elements and more.
//
// T: the element type, of 4 or 8 bytes.

#include "instructions.cuh"
#include "tile_product.cuh"

// Sizes, and steps in memory.
struct Product {
    long long M, N, K;
    long long c_m, c_n, a_m, a_k, b_k, b_n;
    long long part, batches;
};

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

// What is added to c_mn; only the first part of a split sum adds it.
__device__ __forceinline__ SUM bias_of(const T* bias, int bias_along, long long m, long long n) {
    if (bias_along == NO_BIAS || blockIdx.y > 0) return SUM(0);
    return (SUM)bias[bias_along == BIAS_ALONG_N ? n : m];
}

// ---------------------------------------------------------------- tiles

// One factor of a tile, as this thread copies it.  A matrix that lies along k is copied along k.
template <int LENGTH>
struct Factor {
    typedef Share<T, LENGTH, true> Along;
    typedef Share<T, LENGTH, false> Across;
    bool along_k;
    long long step, step_k;  // from one row (or column), and from one k, to the next
    int at, k;               // where in the tile this thread begins
    int count;               // rows (or columns) that are there, from its first on
    const T* next;           // its first element of the next tile

    // `matrix` begins at the tile's first row (or column), and at the first k.
    __device__ Factor(const T* matrix, long long step, long long step_k, long long count)
        : along_k(step_k == 1), step(step), step_k(step_k) {
        at = along_k ? Along::at(0) : Across::at(0);
        k = along_k ? Along::k(0) : Across::k(0);
        this->count = (int)min(count, (long long)LENGTH) - at;
        next = matrix + at * step + k * step_k;
    }

    // `depth` of the k are left.
    template <class TILE>
    __device__ void fetch(TILE& tile, long long depth) {
        int ks = (int)min(depth, (long long)Along::DEPTH) - k;
        int apart = along_k ? Along::APART : Across::APART;  // of the elements that it copies
        int there = min(count, ks) <= 0 ? 0 : along_k ? count : ks;
        const T* from = next;
        T* to = &tile[k][at];
#pragma unroll
        for (int i = 0; i < Along::COUNT; i++) {
            copy_async<sizeof(T)>(to, from, i * apart < there);
            from += apart * (along_k ? step : step_k);
            to += along_k ? Along::APART : Across::APART * (int)(sizeof(tile[0]) / sizeof(T));
        }
        next += Along::DEPTH * step_k;
    }
};

// Both of them, as tile_product.cuh asks for them.
struct Factors {
    Factor<TILE_ROWS> a;
    Factor<TILE_COLUMNS> b;

    template <class LEFT, class RIGHT>
    __device__ void fetch(LEFT& left, RIGHT& right, long long depth) {
        a.fetch(left, depth);
        b.fetch(right, depth);
    }
};

extern "C" __global__ __launch_bounds__(THREADS, RESIDENT<T>) void gemm_tiles(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    const __grid_constant__ Product p, Layout batch) {
    long long tiles_m = (p.M + TILE_ROWS - 1) / TILE_ROWS, tiles = tiles_m * ((p.N + TILE_COLUMNS - 1) / TILE_COLUMNS);
    long long z = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    long long m0 = tile % tiles_m * TILE_ROWS, n0 = tile / tiles_m * TILE_COLUMNS;
    long long k_begin = blockIdx.y * p.part, k_end = p.K - k_begin < p.part ? p.K : k_begin + p.part;
    a += offset_of(batch, 0, z) + m0 * p.a_m + k_begin * p.a_k;
    b += offset_of(batch, 1, z) + n0 * p.b_n + k_begin * p.b_k;
    c += (blockIdx.y * p.batches + z) * p.M * p.N + m0 * p.c_m + n0;  // p.c_n is 1: it is others that may make c^T
    Factors factors = {{a, p.a_m, p.a_k, p.M - m0}, {b, p.b_n, p.b_k, p.N - n0}};
    tile_product<T, TileSums<T, SUM>>(factors, k_end - k_begin, [&](int row, SUM sum) {
        int column = threadIdx.x % TILE_COLUMNS;
        if (m0 + row < p.M && n0 + column < p.N)
            c[row * p.c_m + column] = (T)(sum + bias_of(bias, bias_along, m0 + row, n0 + column));
    });
}

// ---------------------------------------------------------------- few rows

// Both kernels read every element of b once, which is what such a product costs; the few rows of a are in shared
// memory, SPAN of the k at a time.
#define ROWS 8  // most rows of c, and warps of a block; loops over rows are unrolled, to keep the sums in registers
#define SPAN 256

// span[m][k] = a_mk for the M rows and `count` of the k
__device__ __forceinline__ void load_rows(T (*span)[SPAN], const T* a, long long a_m, long long a_k, int M, int count) {
    for (int m = 0; m < M; m++)
        for (int k = threadIdx.x; k < count; k += THREADS) span[m][k] = a[m * a_m + k * a_k];
}

// sums_m += sum_k span[m][k] b_k over k = first, first + STEP, ... below count
template <int STEP>
__device__ __forceinline__ void multiply_rows(SUM (&sums)[ROWS], const T (*span)[SPAN], const T* b, long long b_k,
                                              int M, int first, int count) {
#pragma unroll 4
    for (int k = first; k < count; k += STEP) {
        SUM b_kn = b[k * b_k];
#pragma unroll
        for (int m = 0; m < ROWS; m++)
            if (m < M) sums[m] += (SUM)span[m][k] * b_kn;
    }
}

// Blocks at a time on a multiprocessor, for gemm_skinny_k; 0 leaves it to the compiler.  It makes room for 5, but sums of
// 8 bytes would then spill.
constexpr int FEW_ROWS_RESIDENT = sizeof(SUM) == 4 ? 0 : 4;

extern "C" __global__ __launch_bounds__(THREADS, FEW_ROWS_RESIDENT) void gemm_skinny_k(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    const __grid_constant__ Product p, Layout batch) {
    __shared__ T span[ROWS][SPAN];
    int lane = threadIdx.x % WARP;
    long long blocks = (p.N + ROWS - 1) / ROWS, z = blockIdx.x / blocks;
    long long n = blockIdx.x % blocks * ROWS + threadIdx.x / WARP;
    long long k_begin = blockIdx.y * p.part, k_end = p.K - k_begin < p.part ? p.K : k_begin + p.part;
    a += offset_of(batch, 0, z);
    b += offset_of(batch, 1, z) + n * p.b_n;
    SUM sums[ROWS] = {};
    for (long long k = k_begin; k < k_end; k += SPAN) {
        int count = k_end - k < SPAN ? (int)(k_end - k) : SPAN;
        load_rows(span, a + k * p.a_k, p.a_m, p.a_k, (int)p.M, count);
        __syncthreads();
        // every lane one k in 32
        if (n < p.N) multiply_rows<WARP>(sums, span, b + k * p.b_k, p.b_k, (int)p.M, lane, count);
        __syncthreads();
    }
    if (n >= p.N) return;  // the whole warp, and no barrier follows
    c += (blockIdx.y * p.batches + z) * p.M * p.N + n * p.c_n;
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
        if (m >= p.M) break;
        SUM sum = warp_sum(sums[m]);
        if (lane == m) c[m * p.c_m] = (T)(sum + bias_of(bias, bias_along, m, n));
    }
}

extern "C" __global__ __launch_bounds__(THREADS) void gemm_skinny_n(
    T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, int bias_along,
    const __grid_constant__ Product p, Layout batch) {
    __shared__ T span[ROWS][SPAN];
    __shared__ SUM of_warps[ROWS][ROWS][WARP];  // for each row and column
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long blocks = (p.N + WARP - 1) / WARP, z = blockIdx.x / blocks;
    long long n = blockIdx.x % blocks * WARP + lane;
    long long k_begin = blockIdx.y * p.part, k_end = p.K - k_begin < p.part ? p.K : k_begin + p.part;
    a += offset_of(batch, 0, z);
    b += offset_of(batch, 1, z) + n * p.b_n;
    SUM sums[ROWS] = {};
    for (long long k = k_begin; k < k_end; k += SPAN) {
        int count = k_end - k < SPAN ? (int)(k_end - k) : SPAN;
        load_rows(span, a + k * p.a_k, p.a_m, p.a_k, (int)p.M, count);
        __syncthreads();
        // every warp one k in 8
        if (n < p.N) multiply_rows<ROWS>(sums, span, b + k * p.b_k, p.b_k, (int)p.M, warp, count);
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++)
        if (m < p.M) of_warps[warp][m][lane] = sums[m];
    __syncthreads();
    int m = warp;  // and now every warp takes one row
    if (m < p.M && n < p.N) {
        SUM sum = 0;
        for (int other = 0; other < ROWS; other++) sum += of_warps[other][m][lane];
        c += (blockIdx.y * p.batches + z) * p.M * p.N;
        c[m * p.c_m + n * p.c_n] = (T)(sum + bias_of(bias, bias_along, m, n));
    }
}

// ---------------------------------------------------------------- sums of columns

// A block sums 32 columns: every warp takes one row in ROWS, then the first warp adds what the others found.
// blockIdx.y: the number of a part of the rows, each with `part` of them and a y of its own.
extern "C" __global__ __launch_bounds__(THREADS) void column_sums(
    T* __restrict__ y, const T* __restrict__ x, long long M, long long N, long long x_m, long long x_n,
    long long part) {
    __shared__ SUM of_warps[ROWS][WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long n = (long long)blockIdx.x * WARP + lane;
    long long m_begin = blockIdx.y * part, m_end = M - m_begin < part ? M : m_begin + part;
    SUM sum = 0;
    if (n < N) {
#pragma unroll 4
        for (long long m = m_begin + warp; m < m_end; m += ROWS) sum += (SUM)x[m * x_m + n * x_n];
    }
    of_warps[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && n < N) {
        for (int other = 1; other < ROWS; other++) sum += of_warps[other][lane];
        y[blockIdx.y * N + n] = (T)sum;
    }
}
