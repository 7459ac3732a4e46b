// The ladder of convolutions, step 1: the formula and nothing else.
//
//     y[n,o,i,j] = sum over c,u,v of  w[o,c,u,v] * x[n, c, stride*i + u - padding, stride*j + v - padding]
//
// with x = 0 outside the image.  One thread computes one number of y.
//
// Threads side by side are output pixels side by side, so that they read pixels of x side by side (at stride 1), and
// all 32 of a warp the same weight: each of these is one request of few bytes.  But there are two of them for every
// single multiplication, and all the threads of a card ask for the same weights and pixels again and again: the kernel
// waits for memory.  Step 2 lets threads share what they have read.

extern "C" __global__ void conv2d_naive(const REAL* __restrict__ x, const REAL* __restrict__ w, REAL* __restrict__ y,
                                        int images, int channels, int height, int width, int out_channels, int oh,
                                        int ow, int kh, int kw, int stride, int padding) {
    long long number = global_thread();
    if (number >= (long long)images * out_channels * oh * ow) return;
    int j = number % ow, i = number / ow % oh, o = number / ((long long)oh * ow) % out_channels;
    long long n = number / ((long long)oh * ow * out_channels);

    REAL sum = 0;
    for (int c = 0; c < channels; c++)
        for (int u = 0; u < kh; u++)
            for (int v = 0; v < kw; v++) {
                int row = stride * i + u - padding, col = stride * j + v - padding;
                if (row >= 0 && row < height && col >= 0 && col < width)
                    sum += w[(((long long)o * channels + c) * kh + u) * kw + v] *
                           x[((n * channels + c) * height + row) * width + col];
            }
    y[number] = sum;
}
