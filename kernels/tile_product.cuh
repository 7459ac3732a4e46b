// The product of two matrices, tile by tile, as conv2d.cu and gemm.cu make it:
//
//     sum_ij = sum over k of  left_ik * right_kj
//
// A block of 16 x 16 threads computes a tile of TILE_ROWS x TILE_COLUMNS sums, up to 8 x 8 in the registers of each
// thread.  Tiles of both factors, with DEPTH of the k each, go through shared memory, which has room for two pairs:
// while one is multiplied, the other is copied there, without a register in between (copy_async).
//
// A thread that has read 8 numbers of either factor makes 64 products of them.  That is what a large tile is for: every
// instruction that reads takes the turn of one that multiplies.  But rows that no matrix has are work for nothing.  So
// the host chooses TILE_ROWS, of 32, 48, 64, 96 and 128 (minigrad/ops/_tile_product.py).
//
// Where the factors lie is their own affair: FACTORS, below.  How the sums of a tile are shared out among the threads,
// and how these multiply, is that of SUMS.

#ifndef TILE_ROWS
#define TILE_ROWS 64  // -D says another: a multiple of 16, or of 32 where elements have 8 bytes
#endif
#define TILE_COLUMNS 128

#define SIDE 16         // threads along each side of a block
#define THREADS 256     // of a block
#define DEPTH_BYTES 64  // of a tile along k: DEPTH is 16 floats, or 8 doubles
#define NEAR 8          // so many threads side by side copy numbers that lie side by side along k

// Blocks at a time on a multiprocessor, for __launch_bounds__: two leave a thread 128 registers, which sums of 8 bytes
// would exceed.
template <class T>
constexpr int RESIDENT = sizeof(T) == 4 ? 2 : 1;

// Which elements of a tile with LENGTH rows (or columns) a thread copies: number i of COUNT is at(i), with k(i).
// ALONG_K: neighbours in memory are neighbours along k, and not along the rows (or columns).  Then all that a thread
// copies has the same k; else all of it lies in the same row (or column).  Either way a warp reads whole sectors of 32
// bytes, and writes to 32 banks.
template <class T, int LENGTH, bool ALONG_K>
struct Share {
    static constexpr int DEPTH = DEPTH_BYTES / sizeof(T), COUNT = LENGTH * DEPTH / THREADS;
    static constexpr int APART = ALONG_K ? THREADS / DEPTH : THREADS / LENGTH;  // from one to the next
    static_assert(COUNT * THREADS == LENGTH * DEPTH && (ALONG_K || APART * LENGTH == THREADS), "equal shares");
    static __device__ int at(int i) {
        return ALONG_K ? threadIdx.x / NEAR % APART + i * APART : threadIdx.x % LENGTH;
    }
    static __device__ int k(int i) {
        return ALONG_K ? threadIdx.x % NEAR + threadIdx.x / (NEAR * APART) * NEAR : threadIdx.x / LENGTH + i * APART;
    }
};

// The N rows (or columns) of one of SIDE threads: in runs of neighbours, each of which is one access of up to 16 bytes.
// Runs of all threads lie side by side, then come their next ones.
template <class T, int N>
struct Runs {
    static constexpr int LENGTH = N % 4 == 0 && sizeof(T) == 4 ? 4 : N % 2 == 0 ? 2 : 1;
    struct __align__(LENGTH * sizeof(T)) Run {
        T of[LENGTH];
    };
    static __device__ int at(int i, int thread) { return (i / LENGTH * SIDE + thread) * LENGTH + i % LENGTH; }
    static __device__ void load(T (&values)[N], const T* line, int thread) {
#pragma unroll
        for (int i = 0; i < N; i += LENGTH) {
            Run run = *(const Run*)&line[at(i, thread)];
#pragma unroll
            for (int e = 0; e < LENGTH; e++) values[i + e] = run.of[e];
        }
    }
    template <class SUM>
    static __device__ void store(T* line, const SUM (&values)[N], int thread) {
#pragma unroll
        for (int i = 0; i < N; i += LENGTH) {
            Run run;
#pragma unroll
            for (int e = 0; e < LENGTH; e++) run.of[e] = (T)values[i + e];
            *(Run*)&line[at(i, thread)] = run;
        }
    }
};

// A thread's sums, R rows x C columns of the tile's.  T: the type of the factors' elements, SUM: that of their sums.
template <class T, class SUM>
struct Sums {
    static constexpr int R = TILE_ROWS / SIDE, C = TILE_COLUMNS / SIDE;
    // Lines of a tile in shared memory are so much longer than they need be: what NEAR threads write to as many lines,
    // and a few neighbours in each of these, then lies in different banks; and lines still begin at 16 bytes.
    static constexpr int PAD = 16 / sizeof(T);
    SUM of[R][C];

    // The thread's place among the SIDE x SIDE of the block.  A warp is 4 x 8 of them, not 2 x 16: it reads fewer
    // numbers for as many products.  Threads 2i and 2i + 1 are a pair, which reads the same b; a warp has two pairs
    // down and 8 across.  The rows of a pair are 4 apart, STEP runs: what its threads write to as many lines then lies
    // in different banks.
    static constexpr int STEP = 4 / Runs<T, R>::LENGTH;
    static __device__ int down() {
        int pair = threadIdx.x / (2 * WARP) * 2 + threadIdx.x % WARP / 16;
        return pair / STEP * 2 * STEP + threadIdx.x % 2 * STEP + pair % STEP;
    }
    static __device__ int across() { return threadIdx.x / WARP % 2 * 8 + threadIdx.x / 2 % 8; }

    // Where in the tile of[i] lies, and how it is written to a line of numbers for each column.
    static __device__ int row(int i) { return Runs<T, R>::at(i, down()); }
    __device__ void put(T* line, int i) const { Runs<T, C>::store(line, of[i], across()); }

    // Adds the product of a pair of tiles, [k][row] and [k][column].
    template <class LEFT, class RIGHT>
    __device__ void add_product(const LEFT& left, const RIGHT& right) {
#pragma unroll
        for (int k = 0; k < DEPTH_BYTES / (int)sizeof(T); k++) {
            T a[R], b[C];
            Runs<T, R>::load(a, left[k], down());
            Runs<T, C>::load(b, right[k], across());
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int j = 0; j < C; j++) of[i][j] += (SUM)a[i] * (SUM)b[j];
        }
    }
};

// What sums a tile: matrix units, where the host asks for them (-DTF32=1; T and SUM are float), else Sums.
#ifdef TF32
#include "tile_product_tf32.cuh"
template <class T, class SUM>
using TileSums = MatrixUnits;
#else
template <class T, class SUM>
using TileSums = Sums<T, SUM>;
#endif

// The sums of a tile over `depth` of the k.  Each is handed to some thread's `put(row, sum)`; its column in the tile is
// threadIdx.x % TILE_COLUMNS.  SUMS: Sums, or what has R, PAD, row, put and add_product as that has.
//
// FACTORS has
//     fetch(left, right, depth)   copies this thread's elements of the first tiles, then of the next, and so on, to
//                                 left[k][row] and right[k][column], by copy_async; `depth` of the k are left, beyond
//                                 them are zeros.  All threads call it together, and between two calls lies a barrier.
template <class T, class SUMS, class FACTORS, class PUT>
__device__ __forceinline__ void tile_product(FACTORS& factors, long long depth, const PUT& put) {
    constexpr int DEPTH = DEPTH_BYTES / sizeof(T);
    __shared__ __align__(16) T lefts[2][DEPTH][TILE_ROWS + SUMS::PAD];
    __shared__ __align__(16) T rights[2][DEPTH][TILE_COLUMNS + SUMS::PAD];

    SUMS sums = {};
    int now = 0;
    if (depth > 0) factors.fetch(lefts[now], rights[now], depth);
    for (; depth > 0; depth -= DEPTH, now ^= 1) {
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();  // the tiles have arrived, of all threads; and all have multiplied those before
        if (depth > DEPTH) factors.fetch(lefts[now ^ 1], rights[now ^ 1], depth - DEPTH);
        sums.add_product(lefts[now], rights[now]);
    }

    // A thread's sums lie in many columns.  So that a warp writes neighbours, and a thread looks up where one column
    // lies and not eight, they change threads by way of shared memory, DEPTH rows at a time.  The first go where the
    // tiles were that all have multiplied before the last barrier; the next, where those were that all have multiplied
    // before the barrier below.
    int column = threadIdx.x % TILE_COLUMNS;
    for (int first = 0; first < TILE_ROWS; first += DEPTH, now ^= 1) {
#pragma unroll
        for (int i = 0; i < SUMS::R; i++) {
            int line = sums.row(i) - first;
            if (0 <= line && line < DEPTH) sums.put(rights[now][line], i);
        }
        __syncthreads();
#pragma unroll
        for (int line = threadIdx.x / TILE_COLUMNS; line < DEPTH; line += THREADS / TILE_COLUMNS)
            put(first + line, rights[now][line][column]);
    }
}
