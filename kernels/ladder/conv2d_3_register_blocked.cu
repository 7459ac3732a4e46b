// The ladder of convolutions, step 3: a block of numbers in the registers of each thread.  The formula is that of
// step 1.
//
// A block of 16 x 16 threads computes a tile of 64 output channels x 64 output pixels, 4 x 4 numbers a thread.  For
// each k it reads 4 weights and 4 pixels from shared memory, and multiplies each with each: 16 multiplications for 8
// reads, where step 2 had 1 for 2; and each number read from memory is used 64 times.
//
// Shared memory has 32 banks, each of which gives out one word at a time; neighbouring words lie in neighbouring banks.
// A thread's channels and pixels are 16 apart, so that threads side by side read words side by side.  A warp is two
// rows of 16 threads: `pixels` has rows of 64 + 16 words, so that what two rows of threads write lies in different
// banks.
//
// What kernels/conv2d.cu does besides: where there are enough channels and pixels, up to 8 x 8 numbers a thread, 64
// multiplications for 16 numbers, which are neighbours and read four at a time.  It copies the next tiles while it
// multiplies these, without a register in between (tile_product.cuh), divides once for many tiles and not for every
// pixel fetched, and cuts long sums into parts where there are few tiles.  And it does gradients, groups and dilation.

#define SIDE 16  // threads along each side of a block
#define EACH 4   // numbers along each side of what a thread computes
#define TILE (SIDE * EACH)
#define DEPTH 16

extern "C" __global__ __launch_bounds__(SIDE * SIDE) void conv2d_register_blocked(
    const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y, int images, int channels, int height,
    int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding) {
    __shared__ REAL weights[TILE][DEPTH], pixels[DEPTH][TILE + SIDE];
    const int tx = threadIdx.x, ty = threadIdx.y, depth = channels * kh * kw;
    const long long all_pixels = (long long)images * oh * ow;

    // Where the windows of this thread's pixels begin, as image, row and column.
    long long image[EACH];
    int top[EACH], left[EACH];
    for (int b = 0; b < EACH; b++) {
        long long pixel = (long long)blockIdx.x * TILE + tx + b * SIDE;
        image[b] = pixel < all_pixels ? pixel / ((long long)oh * ow) : -1;
        top[b] = (int)(pixel / ow % oh) * stride - padding;
        left[b] = (int)(pixel % ow) * stride - padding;
    }

    REAL sum[EACH][EACH] = {};
    for (int first = 0; first < depth; first += DEPTH) {
        for (int a = 0; a < EACH; a++) {
            int k = first + tx, o = blockIdx.y * TILE + ty + a * SIDE;
            weights[ty + a * SIDE][tx] = o < out_channels && k < depth ? w[(long long)o * depth + k] : REAL(0);
        }
        int k = first + ty, c = k / (kh * kw), u = k / kw % kh, v = k % kw;
        for (int b = 0; b < EACH; b++) {
            int row = top[b] + u, col = left[b] + v;
            bool inside = k < depth && image[b] >= 0 && row >= 0 && row < height && col >= 0 && col < width;
            pixels[ty][tx + b * SIDE] = inside ? x[((image[b] * channels + c) * height + row) * width + col] : REAL(0);
        }
        __syncthreads();

        for (int t = 0; t < DEPTH; t++) {
            REAL weight[EACH], pixel[EACH];
            for (int a = 0; a < EACH; a++) weight[a] = weights[ty + a * SIDE][t];
            for (int b = 0; b < EACH; b++) pixel[b] = pixels[t][tx + b * SIDE];
            for (int a = 0; a < EACH; a++)
                for (int b = 0; b < EACH; b++) sum[a][b] += weight[a] * pixel[b];
        }
        __syncthreads();
    }

    for (int a = 0; a < EACH; a++)
        for (int b = 0; b < EACH; b++) {
            int o = blockIdx.y * TILE + ty + a * SIDE;
            long long pixel = (long long)blockIdx.x * TILE + tx + b * SIDE - image[b] * oh * ow;  // of its image
            if (o < out_channels && image[b] >= 0) y[(image[b] * out_channels + o) * oh * ow + pixel] = sum[a][b];
        }
}
