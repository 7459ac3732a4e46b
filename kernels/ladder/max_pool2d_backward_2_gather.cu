// The ladder of max-pooling's gradient, step 2: each pixel asks the windows that see it whether it won.
//
//     dx[n,c,h,l] = sum of dy[n,c,i,j] over the windows i,j whose winner is (u,v) = (h + padding - stride*i,
//                                                                                    l + padding - stride*j)
//
// One thread has one pixel.  The windows that see row h are those with 0 <= h + padding - stride*i < kh: a few in a
// row, found by two divisions.  The same for columns.
//
// Every number of dx is written once, by one thread, and its sum always made in the same order, row by row: the same
// bits every time, without atomics and without zeros before.
//
// What it costs: a winner is read by each of the 9 pixels under a 3 x 3 window, where step 1 reads it once; but it is
// one byte, and dx is written once, where step 1 fills it, and reads and writes it again.  Without a cache the two come
// out even: it is for the same bits that this step is taken.
//
// What kernels/max_pool2d.cu does besides: dilation, and windows, strides and padding that differ along the two axes.
// For windows of 3 x 3, 2 apart, one thread has 2 x 2 pixels, which all look at the same four winners: each is read 4
// times, not 9, and a pixel takes a sixth of the instructions.

extern "C" __global__ void max_pool2d_backward_gather(const REAL* __restrict__ dy, const TAP* __restrict__ winner,
                                                      REAL* __restrict__ dx, long long maps, int height, int width,
                                                      int oh, int ow, int kh, int kw, int stride, int padding) {
    long long number = global_thread();
    if (number >= maps * height * width) return;
    Place at = place_of(number, height, width);  // the number of its map (n,c), h and l
    int down = at.row + padding, across = at.col + padding;

    REAL sum = 0;
    for (int i = down < kh ? 0 : (down - kh) / stride + 1; i <= min(down / stride, oh - 1); i++)
        for (int j = across < kw ? 0 : (across - kw) / stride + 1; j <= min(across / stride, ow - 1); j++) {
            long long window = (at.map * oh + i) * ow + j;
            if (winner[window] == (down - stride * i) * kw + across - stride * j) sum += dy[window];
        }
    dx[number] = sum;
}
