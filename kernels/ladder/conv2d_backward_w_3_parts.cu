// The ladder of convolution's gradient for w, step 3: sums in parts.  The formula is that of step 1.
//
// The tiles are those of step 2, but the sum over k = n,i,j is cut into parts, each the work of blocks of its own
// (blockIdx.z): with 8 parts there are 8 times as many blocks, each done in an eighth of the time.  Each part has a dw
// of its own in memory, and a second kernel adds them.
//
// Blocks could add to one dw with atomicAdd, and need neither parts nor the second kernel.  But the order would be
// chance, and so would be the last bits.  Here parts depend on sizes alone, and are added from first to last.
//
// What it costs: memory for the parts, which are written and read once more: worth it while parts are few and sums
// long.
//
// What kernels/conv2d.cu does besides: up to 128 x 128 weights for a block, 64 in the registers of each thread; it
// copies the next tiles while it multiplies these.  And the host chooses the number of parts by counting: blocks run in
// waves, of which the last should be full, too, but parts must be added (minigrad/ops/_tile_product.py).

#define TILE 16
#define PAD (sizeof(REAL) == 8 ? 1 : 2)

extern "C" __global__ __launch_bounds__(TILE * TILE) void conv2d_backward_w_parts(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ parts, int images, int channels,
    int height, int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding,
    long long part_depth) {
    __shared__ REAL tile_dy[TILE][TILE], tile_x[TILE][TILE + PAD];  // dy at [o][k], x at [k][column]
    const int tx = threadIdx.x, ty = threadIdx.y, columns = channels * kh * kw;
    const int o = blockIdx.y * TILE + ty;
    const long long depth = (long long)images * oh * ow;
    const long long begin = blockIdx.z * part_depth, end = min(begin + part_depth, depth);  // new: this block's k

    int fetched = blockIdx.x * TILE + ty;
    int v = fetched % kw, u = fetched / kw % kh, c = fetched / (kh * kw);

    REAL sum = 0;
    for (long long first = begin; first < end; first += TILE) {
        long long k = first + tx, n = k / (oh * ow);
        int pixel = k - n * oh * ow, i = pixel / ow, j = pixel % ow;
        bool in_part = k < end;
        tile_dy[ty][tx] = in_part && o < out_channels ? dy[(n * out_channels + o) * oh * ow + pixel] : REAL(0);

        int row = stride * i + u - padding, col = stride * j + v - padding;
        bool inside = in_part && c < channels && row >= 0 && row < height && col >= 0 && col < width;
        tile_x[tx][ty] = inside ? x[((n * channels + c) * height + row) * width + col] : REAL(0);
        __syncthreads();

        for (int t = 0; t < TILE; t++) sum += tile_dy[ty][t] * tile_x[t][tx];
        __syncthreads();
    }
    int column = blockIdx.x * TILE + tx;
    if (o < out_channels && column < columns)  // new: into this part's own dw
        parts[((long long)blockIdx.z * out_channels + o) * columns + column] = sum;
}

// dw = the sum of `count` arrays of n numbers each, which lie in `parts` one after the other.
extern "C" __global__ void conv2d_backward_w_add(const REAL* __restrict__ parts, REAL* __restrict__ dw, int count,
                                                 long long n) {
    long long i = global_thread();
    if (i >= n) return;
    REAL sum = 0;
    for (int part = 0; part < count; part++) sum += parts[part * n + i];
    dw[i] = sum;
}
