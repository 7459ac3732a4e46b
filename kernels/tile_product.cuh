// The product of two matrices, tile by tile, as conv2d.cu and gemm.cu make it:
//
//     sum_ij = sum over k of  left_ik * right_kj
//
// A block of threads computes a tile of ROWS x COLUMNS sums.  Tiles of both factors, with DEPTH of the k each, go
// through shared memory, with two buffers for each: while one is multiplied, the other is filled.  A warp has
// ROWS / WARPS rows of the sums; each of its lanes has every 32nd column of these, in registers.
//
// Where the factors lie is their own affair: FACTORS, below.

#define THREADS 256  // of a block
#define WARPS (THREADS / WARP)
#define DEPTH_BYTES 64  // DEPTH of the k are so many bytes: two pairs of tiles fit 48 KB of shared memory
#define NEAR 8          // so many threads side by side fetch numbers that lie side by side along k

// Which elements of a tile with LENGTH rows (or columns) one thread fetches: number i is at(i), with k(i).  along_k:
// neighbours in memory are neighbours along k, and not along the rows (or columns).  Either way a warp reads whole
// sectors of 32 bytes.
template <int LENGTH>
struct Share {
    static constexpr int STEPS = LENGTH * NEAR / THREADS;  // after so many the next k begins, if along_k
    bool along_k;
    __device__ int at(int i) const {
        return along_k ? threadIdx.x / NEAR + i % STEPS * (THREADS / NEAR) : threadIdx.x % LENGTH;
    }
    __device__ int k(int i) const {
        return along_k ? threadIdx.x % NEAR + i / STEPS * NEAR : threadIdx.x / LENGTH + i * (THREADS / LENGTH);
    }
};

// A thread's sums: ROWS x COLUMNS of the tile's, by all of its threads.
template <class SUM, int ROWS, int COLUMNS>
struct Sums {
    static constexpr int R = ROWS / WARPS, C = COLUMNS / WARP;
    SUM of[R][C];
    // Where in the tile of[i][j] lies.
    static __device__ int row(int i) { return threadIdx.x / WARP * R + i; }
    static __device__ int column(int j) { return threadIdx.x % WARP + j * WARP; }
};

// The sums of a tile over k = begin to end.  T: the type of the factors' elements, SUM: what they are summed in.
//
// FACTORS has
//     left, right          which elements each thread fetches: a Share of each factor
//     prepare(buffer, k)   called before the tiles that begin at k are fetched, with a barrier between the two
//     fetch(l, r, buffer, k)   l[i], r[i] = this thread's elements of the tiles that begin at k; 0 beyond the end
template <class T, class SUM, int ROWS, int COLUMNS, class FACTORS>
__device__ __forceinline__ Sums<SUM, ROWS, COLUMNS> tile_product(FACTORS& factors, long long begin, long long end) {
    constexpr int DEPTH = DEPTH_BYTES / sizeof(T), R = ROWS / WARPS, C = COLUMNS / WARP;
    constexpr int LEFTS = ROWS * DEPTH / THREADS, RIGHTS = COLUMNS * DEPTH / THREADS;  // what a thread fetches
    // Rows are 16 bytes longer than they need be: what NEAR threads write to as many rows, and a few neighbours in each
    // of these, then lies in different banks.
    constexpr int PAD = 16 / sizeof(T);
    __shared__ __align__(16) T lefts[2][DEPTH][ROWS + PAD];
    __shared__ __align__(16) T rights[2][DEPTH][COLUMNS + PAD];

    T l[LEFTS], r[RIGHTS];
    auto put = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < LEFTS; i++) lefts[buffer][factors.left.k(i)][factors.left.at(i)] = l[i];
#pragma unroll
        for (int i = 0; i < RIGHTS; i++) rights[buffer][factors.right.k(i)][factors.right.at(i)] = r[i];
    };

    Sums<SUM, ROWS, COLUMNS> sum = {};
    factors.prepare(0, begin);
    factors.prepare(1, begin + DEPTH);
    __syncthreads();
    factors.fetch(l, r, 0, begin);
    put(0);
    __syncthreads();
    int now = 0;
    for (long long first = begin; first < end; first += DEPTH, now ^= 1) {
        bool more = first + DEPTH < end;
        if (more) factors.fetch(l, r, now ^ 1, first + DEPTH);
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            T a[R], b[C];
#pragma unroll
            for (int i = 0; i < R; i++) a[i] = lefts[now][k][sum.row(i)];
#pragma unroll
            for (int j = 0; j < C; j++) b[j] = rights[now][k][sum.column(j)];
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int j = 0; j < C; j++) sum.of[i][j] += (SUM)a[i] * (SUM)b[j];
        }
        if (more) {
            put(now ^ 1);
            factors.prepare(now, first + 2 * DEPTH);  // nobody reads the old ones since the last barrier
        }
        __syncthreads();
    }
    return sum;
}
