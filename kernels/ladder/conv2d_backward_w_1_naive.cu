// The ladder of convolution's gradient for w, step 1: the formula and nothing else.
//
//     dw[o,c,u,v] = sum over n,i,j of  dy[n,o,i,j] * x[n, c, stride*i + u - padding, stride*j + v - padding]
//
// with x = 0 outside the image.  One thread computes one weight's gradient.
//
// No two threads write the same number, so there is nothing to be atomic: a gradient for w is a gather as it stands.
// (One thread for each dy, which adds to all the weights that it has met, would be the scatter.)
//
// What it costs: weights are few and their sums are long.  AlexNet's conv1 has 34,848 weights, and 387,200 terms for
// each at 128 images: too few threads for a large card, each of which reads two numbers for every multiplication.
// Step 2 lets threads share what they have read, step 3 makes more of them.

extern "C" __global__ void conv2d_backward_w_naive(const REAL* __restrict__ dy, const REAL* __restrict__ x,
                                                   REAL* __restrict__ dw, int images, int channels, int height,
                                                   int width, int out_channels, int oh, int ow, int kh, int kw,
                                                   int stride, int padding) {
    long long number = global_thread();
    if (number >= (long long)out_channels * channels * kh * kw) return;
    int v = number % kw, u = number / kw % kh, c = number / (kh * kw) % channels;
    long long o = number / ((long long)kh * kw * channels);

    REAL sum = 0;
    for (long long n = 0; n < images; n++)
        for (int i = 0; i < oh; i++)
            for (int j = 0; j < ow; j++) {
                int row = stride * i + u - padding, col = stride * j + v - padding;
                if (row >= 0 && row < height && col >= 0 && col < width)
                    sum += dy[((n * out_channels + o) * oh + i) * ow + j] *
                           x[((n * channels + c) * height + row) * width + col];
            }
    dw[number] = sum;
}
