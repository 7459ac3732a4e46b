// The ladder of convolution's gradient for w, step 2: tiles in shared memory.  The formula is that of step 1.
//
// Read as a matrix product: dw is a matrix of output channels o (rows) by c,u,v (columns), and the sum runs over
// k = n,i,j.  A block of 16 x 16 threads computes a tile of 16 x 16 weights; 16 values of k of both factors at a time
// go through shared memory, and each number that was read is used 16 times.
//
// In both factors it is k along which neighbours lie side by side in memory: output pixels in dy, and, at stride 1,
// pixels in x.  So threads side by side fetch numbers side by side along k.  But the sum wants the tile of x the other
// way round, threads side by side at columns side by side: each thread puts down what it has fetched at [k][column],
// across the tile.
//
// Shared memory has 32 banks, word w in bank w % 32.  In rows of 16 words, threads side by side along k would write
// every 16th word, to 2 banks: 16 threads would take 8 turns.  With 2 words more to a row they write to 16 banks, and
// the next 16 threads, one column on, to the other 16.  A double has two words, and only 16 threads go at a time: there
// one more is enough.
//
// What it costs: AlexNet's conv1 is now 6 x 23 tiles, so 138 blocks, about one for each multiprocessor of a large card,
// which has room for several; and each walks through 387,200 values of k at 128 images.  Step 3
// cuts the sums.

#define TILE 16
#define PAD (sizeof(REAL) == 8 ? 1 : 2)

extern "C" __global__ __launch_bounds__(TILE * TILE) void conv2d_backward_w_tiled(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dw, int images, int channels,
    int height, int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding) {
    __shared__ REAL tile_dy[TILE][TILE], tile_x[TILE][TILE + PAD];  // dy at [o][k], x at [k][column]
    const int tx = threadIdx.x, ty = threadIdx.y, columns = channels * kh * kw;
    const int o = blockIdx.y * TILE + ty;
    const long long depth = (long long)images * oh * ow;

    int fetched = blockIdx.x * TILE + ty;  // the column of x that this thread fetches from; it computes another
    int v = fetched % kw, u = fetched / kw % kh, c = fetched / (kh * kw);

    REAL sum = 0;
    for (long long first = 0; first < depth; first += TILE) {
        long long k = first + tx, n = k / (oh * ow);
        int pixel = k - n * oh * ow, i = pixel / ow, j = pixel % ow;
        bool in_y = k < depth;
        tile_dy[ty][tx] = in_y && o < out_channels ? dy[(n * out_channels + o) * oh * ow + pixel] : REAL(0);

        int row = stride * i + u - padding, col = stride * j + v - padding;
        bool inside = in_y && c < channels && row >= 0 && row < height && col >= 0 && col < width;
        tile_x[tx][ty] = inside ? x[((n * channels + c) * height + row) * width + col] : REAL(0);
        __syncthreads();

        for (int t = 0; t < TILE; t++) sum += tile_dy[ty][t] * tile_x[t][tx];
        __syncthreads();
    }
    int column = blockIdx.x * TILE + tx;
    if (o < out_channels && column < columns) dw[(long long)o * columns + column] = sum;
}
