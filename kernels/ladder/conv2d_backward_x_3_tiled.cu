// The ladder of convolution's gradient for x, step 3: a matrix product over the taps, in tiles.  The formula is that of
// step 2.
//
// Read as a matrix product: dx is a matrix of input channels c (rows) by input pixels n,h,l (columns), and the sum runs
// over k = o,u,v.  The factors are the weights w[o,c,u,v], and for each pixel and tap the one number of dy that the tap
// leads to, or 0 where it leads to none.  That second matrix is kh * kw times as large as dy, and never stored: each
// number of it is looked up when a tile is filled.
//
// A block of 16 x 16 threads computes 16 channels x 16 pixels; tiles of 16 values of k of both factors go through
// shared memory, and each number that was read is used 16 times.
//
// What it costs: what step 2 skipped, at borders and between strides, is multiplied here as zeros: at stride 2, three
// quarters of the work.  kernels/conv2d.cu sorts the pixels: those of one remainder of (h, l) by the stride all take
// the same taps, so that each remainder is a product of its own, without zeros.  Besides it has what step 3 of the
// ladder of convolutions has, and more: sums in registers, two buffers in turn.

#define TILE 16

extern "C" __global__ __launch_bounds__(TILE * TILE) void conv2d_backward_x_tiled(
    const REAL* __restrict__ dy, const REAL* __restrict__ w, REAL* __restrict__ dx, int images, int channels,
    int height, int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding) {
    __shared__ REAL weights[TILE][TILE], tile_dy[TILE][TILE];  // [c][k], [k][pixel]
    const int tx = threadIdx.x, ty = threadIdx.y, depth = out_channels * kh * kw;

    int c = blockIdx.y * TILE + ty;                       // this thread's row
    long long pixel = (long long)blockIdx.x * TILE + tx;  // and column
    bool in_rows = c < channels, in_columns = pixel < (long long)images * height * width;
    int l = pixel % width, h = pixel / width % height;
    long long n = pixel / ((long long)height * width);

    REAL sum = 0;
    for (int first = 0; first < depth; first += TILE) {
        int k = first + tx, o = k / (kh * kw), tap = k % (kh * kw);
        weights[ty][tx] = in_rows && k < depth ? w[((long long)o * channels + c) * kh * kw + tap] : REAL(0);

        k = first + ty, o = k / (kh * kw);
        int down = h + padding - k / kw % kh, across = l + padding - k % kw, i = down / stride, j = across / stride;
        bool in_y = down >= 0 && across >= 0 && i * stride == down && j * stride == across && i < oh && j < ow;
        tile_dy[ty][tx] = in_columns && k < depth && in_y ? dy[((n * out_channels + o) * oh + i) * ow + j] : REAL(0);
        __syncthreads();

        for (int t = 0; t < TILE; t++) sum += weights[ty][t] * tile_dy[t][tx];
        __syncthreads();  // before the next tile overwrites this one
    }
    if (in_rows && in_columns) dx[((n * channels + c) * height + h) * width + l] = sum;
}
