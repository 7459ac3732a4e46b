// The sums of a tile by matrix units: what tile_product.cuh takes for SUMS with -DTF32=1.  The factors are rounded to
// TF32, with 10 bits of mantissa, when they are read from shared memory; their products are summed as floats.
//
// A block of 8 warps shares out the tile: each has a half of the rows, or all where they are no multiple of 32, and an
// equal part of the columns.  A warp multiplies by multiply_add_tf32 (instructions.cuh): 16 rows x 8 columns, 8 of the
// k at a time, for each 16 of its rows and each 8 of its columns.
//
// Which of the rows are the first 8 of a product and which the last 8, and in which order it takes the k, is free, if
// all keep to it.  Here a lane has two rows side by side, which are one access of 8 bytes, and two k side by side.  So
// what a warp reads at once lies in every second of 8 lines of a tile, [k]: 8 numbers of each, or 8 pairs.  Lines are 4
// words longer than a multiple of 16, every second one begins 8 banks further, and all of it is in different banks.
struct MatrixUnits {
    static constexpr int PAD = 4;
    static constexpr int DOWN = TILE_ROWS % 32 == 0 ? 2 : 1, ACROSS = THREADS / WARP / DOWN;  // warps
    static constexpr int ROWS = TILE_ROWS / DOWN, COLUMNS = TILE_COLUMNS / ACROSS;            // of a warp
    static constexpr int R = ROWS / 8, C = COLUMNS / 8;  // rows of a lane; its columns are C pairs
    float of[R / 2][C][4];

    static __device__ int lane() { return threadIdx.x % WARP; }
    static __device__ int first_row() { return threadIdx.x / WARP / ACROSS * ROWS; }
    static __device__ int first_column() { return threadIdx.x / WARP % ACROSS * COLUMNS; }

    static __device__ int row(int i) { return first_row() + i / 2 * 16 + lane() / 4 * 2 + i % 2; }
    __device__ void put(float* line, int i) const {
        line += first_column() + lane() % 4 * 2;
#pragma unroll
        for (int j = 0; j < C; j++)
            *(float2*)&line[j * 8] = {of[i / 2][j][i % 2 * 2], of[i / 2][j][i % 2 * 2 + 1]};
    }

    // Adds the product of a pair of tiles, [k][row] and [k][column].
    template <class LEFT, class RIGHT>
    __device__ void add_product(const LEFT& left, const RIGHT& right) {
#pragma unroll
        for (int first = 0; first < DEPTH_BYTES / (int)sizeof(float); first += 8) {
            float a[R / 2][4], b[C][2];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int k = first + lane() % 4 * 2 + e;
#pragma unroll
                for (int i = 0; i < R / 2; i++) {
                    float2 rows = *(const float2*)&left[k][row(2 * i)];
                    a[i][2 * e] = tf32(rows.x), a[i][2 * e + 1] = tf32(rows.y);
                }
#pragma unroll
                for (int j = 0; j < C; j++) b[j][e] = tf32(right[k][first_column() + j * 8 + lane() / 4]);
            }
#pragma unroll
            for (int i = 0; i < R / 2; i++)
#pragma unroll
                for (int j = 0; j < C; j++) multiply_add_tf32(of[i][j], a[i], b[j]);
        }
    }
};
