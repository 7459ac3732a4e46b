// The ladder of convolution's gradient for x, step 2: each pixel collects what step 1 would send to it.
//
//     dx[n,c,h,l] = sum over o,u,v and those i,j with stride*i + u - padding = h, stride*j + v - padding = l
//                   of  w[o,c,u,v] * dy[n,o,i,j]
//
// One thread computes one number of dx.  For a tap u there is one i at most, (h + padding - u) / stride: none if that
// leaves a remainder, or lies beyond y.  The same for v and j.
//
// One thread writes each number of dx, once: no atomics, no zeros before, and the sum is made in the same order every
// time, so that dx has the same bits.  The order of the loops is chosen for the divisions: one for each u and each v,
// and none for each o.
//
// What it costs: two reads for every multiplication, as in step 1 of convolution itself, and divisions.  At stride 2
// three quarters of the taps find no i or no j; their threads wait for the others of their warp, for which other taps
// are the right ones.  Step 3 shares what it reads.

extern "C" __global__ void conv2d_backward_x_gather(const REAL* __restrict__ dy, const REAL* __restrict__ w,
                                                    REAL* __restrict__ dx, int images, int channels, int height,
                                                    int width, int out_channels, int oh, int ow, int kh, int kw,
                                                    int stride, int padding) {
    long long number = global_thread();
    if (number >= (long long)images * channels * height * width) return;
    int l = number % width, h = number / width % height, c = number / ((long long)height * width) % channels;
    long long n = number / ((long long)height * width * channels);

    REAL sum = 0;
    for (int u = 0; u < kh; u++) {
        int down = h + padding - u, i = down / stride;
        if (down < 0 || i * stride != down || i >= oh) continue;
        for (int v = 0; v < kw; v++) {
            int across = l + padding - v, j = across / stride;
            if (across < 0 || j * stride != across || j >= ow) continue;
            for (int o = 0; o < out_channels; o++)
                sum += w[(((long long)o * channels + c) * kh + u) * kw + v] *
                       dy[((n * out_channels + o) * oh + i) * ow + j];
        }
    }
    dx[number] = sum;
}
