// The ladder of convolution's gradient for x, step 1: forward, run backwards.
//
//     y[n,o,i,j] = sum over c,u,v of  w[o,c,u,v] * x[n, c, stride*i + u - padding, stride*j + v - padding]
//
// so each dy[n,o,i,j], times a weight, belongs to every pixel that y[n,o,i,j] was made of:
//
//     dx[n, c, stride*i + u - padding, stride*j + v - padding] += w[o,c,u,v] * dy[n,o,i,j]    for all n,o,i,j and c,u,v
//
// One thread has one number of dy, and sends it to all its pixels.  dx is zero before.
//
// Other threads send to the same pixels at the same time.  A plain += reads, adds and writes; what another thread has
// written in between is lost.  atomicAdd does the three as one.
//
// What it costs: a reading and a writing access for every multiplication, and threads that want the same pixel wait
// for one another.  Worse, the order in which they come is chance: as sums of floating-point numbers are rounded, the
// last bits of dx change from run to run.  No kernel of minigrad outside this folder does that.  Step 2 asks the
// question the other way round.

extern "C" __global__ void conv2d_backward_x_scatter(const REAL* __restrict__ dy, const REAL* __restrict__ w,
                                                     REAL* __restrict__ dx, int images, int channels, int height,
                                                     int width, int out_channels, int oh, int ow, int kh, int kw,
                                                     int stride, int padding) {
    long long number = global_thread();
    if (number >= (long long)images * out_channels * oh * ow) return;
    int j = number % ow, i = number / ow % oh, o = number / ((long long)oh * ow) % out_channels;
    long long n = number / ((long long)oh * ow * out_channels);

    REAL dy_here = dy[number];
    for (int c = 0; c < channels; c++)
        for (int u = 0; u < kh; u++)
            for (int v = 0; v < kw; v++) {
                int row = stride * i + u - padding, col = stride * j + v - padding;
                if (row >= 0 && row < height && col >= 0 && col < width)
                    atomicAdd(&dx[((n * channels + c) * height + row) * width + col],
                              w[(((long long)o * channels + c) * kh + u) * kw + v] * dy_here);
            }
}
