// The ladder of convolutions, step 4: matrix units.  The formula is that of step 1, but that weights and pixels are
// rounded to TF32, with 10 bits of mantissa: results are right to about three decimals.
//
// A convolution is the product of a matrix of weights, [o][k], and one of pixels, [k][pixel], where k counts c, u and
// v. A matrix unit multiplies 16 x 8 of the one by 8 x 8 of the other by one instruction of a whole warp,
// multiply_add_tf32 of kernels/instructions.cuh.  For it each lane brings its fragments, 4 weights and 2 pixels, and
// gets 4 sums; docs/cuda.md has a picture.
//
// A block of 8 warps computes a tile of 64 output channels x 64 output pixels, each warp 32 x 16 of them as 2 x 2 such
// products.  While it multiplies the tiles of one buffer, asynchronous copies fill the other; what lies in the padding
// is copied as zeros, without a branch.
//
// Rows of 32 + 4 words of weights and of 64 + 8 words of pixels put what the lanes of a warp read at once, 8 x 4
// weights or 4 x 8 pixels, in different banks of shared memory.
//
// What kernels/conv2d.cu does besides is named in step 3.

#include "instructions.cuh"

#define WARPS 8
#define TILE 64
#define DEPTH 32  // one k for each lane

extern "C" __global__ __launch_bounds__(WARP * WARPS) void conv2d_tf32(
    const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, int images, int channels,
    int height, int width, int out_channels, int oh, int ow, int kh, int kw, int stride, int padding) {
    __shared__ float weights[2][TILE][DEPTH + 4], pixels[2][DEPTH][TILE + 8];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, depth = channels * kh * kw;
    const int first_o = blockIdx.y * TILE;
    const long long first_pixel = (long long)blockIdx.x * TILE, all_pixels = (long long)images * oh * ow;

    // Where the windows of the two pixels that this thread fetches begin, as image, row and column.
    long long image[2];
    int top[2], left[2];
    for (int b = 0; b < 2; b++) {
        long long pixel = first_pixel + lane + b * WARP;
        image[b] = pixel < all_pixels ? pixel / ((long long)oh * ow) : -1;
        top[b] = (int)(pixel / ow % oh) * stride - padding;
        left[b] = (int)(pixel % ow) * stride - padding;
    }

    auto fetch = [&](int buffer, int first) {  // the tiles from k = first on; they are there after a wait
        for (int i = warp; i < TILE; i += WARPS) {
            int o = first_o + i, k = first + lane;
            copy_async<4>(&weights[buffer][i][lane], &w[(long long)o * depth + k], o < out_channels && k < depth);
        }
        for (int i = warp; i < DEPTH; i += WARPS) {
            int k = first + i, c = k / (kh * kw), u = k / kw % kh, v = k % kw;
            for (int b = 0; b < 2; b++) {
                int row = top[b] + u, col = left[b] + v;
                bool inside = k < depth && image[b] >= 0 && row >= 0 && row < height && col >= 0 && col < width;
                const float* pixel = &x[((image[b] * channels + c) * height + row) * width + col];
                copy_async<4>(&pixels[buffer][i][lane + b * WARP], pixel, inside);
            }
        }
        copy_async_commit();
    };

    const int channel = warp / 4 * 32, column = warp % 4 * 16;  // in the tile, of what this warp computes
    float sum[2][2][4] = {};
    fetch(0, 0);
    for (int first = 0, now = 0; first < depth; first += DEPTH, now ^= 1) {
        copy_async_wait<0>();
        __syncthreads();  // the tiles are there, and nobody reads the other buffer any more
        if (first + DEPTH < depth) fetch(now ^ 1, first + DEPTH);

        for (int t = 0; t < DEPTH; t += 8) {
            float weight[2][4], pixel[2][2];
            for (int a = 0; a < 2; a++)
                for (int e = 0; e < 4; e++) {
                    int o = channel + a * 16 + lane / 4 + e % 2 * 8, k = t + lane % 4 + e / 2 * 4;
                    weight[a][e] = tf32(weights[now][o][k]);
                }
            for (int b = 0; b < 2; b++)
                for (int e = 0; e < 2; e++) {
                    int k = t + lane % 4 + e * 4;
                    pixel[b][e] = tf32(pixels[now][k][column + b * 8 + lane / 4]);
                }
            for (int a = 0; a < 2; a++)
                for (int b = 0; b < 2; b++) multiply_add_tf32(sum[a][b], weight[a], pixel[b]);
        }
    }

    for (int b = 0; b < 2; b++)
        for (int e = 0; e < 2; e++) {
            long long pixel = first_pixel + column + b * 8 + lane % 4 * 2 + e, n = pixel / ((long long)oh * ow);
            float* out = y + n * out_channels * oh * ow + (pixel - n * oh * ow);
            for (int a = 0; a < 2; a++)
                for (int half = 0; half < 2; half++) {
                    int o = first_o + channel + a * 16 + lane / 4 + half * 8;
                    if (o < out_channels && pixel < all_pixels) out[(long long)o * oh * ow] = sum[a][b][half * 2 + e];
                }
        }
}
