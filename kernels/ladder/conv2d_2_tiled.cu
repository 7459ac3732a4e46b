// The ladder of convolutions, step 2: tiles in shared memory.  The formula is that of step 1.
//
// Read as a matrix product: y is a matrix of output channels o (rows) by output pixels n,i,j (columns), the sum runs
// over k = c,u,v.  A block of 16 x 16 threads computes a tile of 16 channels x 16 pixels, one number a thread.  For 16
// values of k at a time, each thread brings one weight and one pixel to shared memory, and each finds there the 16 of
// either kind that it needs: each number that was read from memory is used 16 times, and not once.
//
// Now it is shared memory that the kernel waits for: still two reads for every multiplication.  Step 3 keeps more of
// what it has read in registers.

#define TILE 16

extern "C" __global__ __launch_bounds__(TILE * TILE) void conv2d_tiled(
    const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y, int images, int channels, int height,
    int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding) {
    __shared__ REAL weights[TILE][TILE], pixels[TILE][TILE];  // [o][k], [k][pixel]
    const int tx = threadIdx.x, ty = threadIdx.y, depth = channels * kh * kw;

    int o = blockIdx.y * TILE + ty;                       // this thread's row
    long long pixel = (long long)blockIdx.x * TILE + tx;  // and column
    bool in_rows = o < out_channels, in_columns = pixel < (long long)images * oh * ow;
    int j = pixel % ow, i = pixel / ow % oh;
    long long n = pixel / ((long long)oh * ow);

    REAL sum = 0;
    for (int first = 0; first < depth; first += TILE) {
        int k = first + tx;  // threads side by side along k: side by side in w
        weights[ty][tx] = in_rows && k < depth ? w[(long long)o * depth + k] : REAL(0);

        k = first + ty;  // threads side by side along pixels: side by side in x
        int c = k / (kh * kw), u = k / kw % kh, v = k % kw;
        int row = stride * i + u - padding, col = stride * j + v - padding;
        bool inside = in_columns && k < depth && row >= 0 && row < height && col >= 0 && col < width;
        pixels[ty][tx] = inside ? x[((n * channels + c) * height + row) * width + col] : REAL(0);
        __syncthreads();

        for (int t = 0; t < TILE; t++) sum += weights[ty][t] * pixels[t][tx];
        __syncthreads();  // before the next tile overwrites this one
    }
    if (in_rows && in_columns) y[((n * out_channels + o) * oh + i) * ow + j] = sum;
}
