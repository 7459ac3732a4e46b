// Views of pictures, prepared for a net: minigrad/ops/prepare.py.
//
//     y[n,v,c,i,j] = (x[n,top+i,left+k,c] - mean[top+i,left+k,c] + colour[n,c]) * scale
//     k = j, or size-1-j in a mirrored view;  top, left and mirrored belong to view v of picture n
//
// The pictures are whole, bytes, and channels-last, as they were decoded; the views are planes of floats, one for each
// channel.  In this order no product is added to anything: there is nothing that a compiler could fuse into one
// instruction, each step is rounded by itself, and the bits are NumPy's.
//
// A warp has one row of a view, 32 pixels of it at a time: it writes 32 floats in a row to each plane, and reads 32
// pixels of the picture that lie together, of which each access takes one channel and the cache keeps the others.  So
// the divisions that find a row's place are done once for all of its pixels.

#ifndef CHANNELS
#define CHANNELS 3
#endif

// rows: of all views together.  windows: for each view top, left, and 1 if it is mirrored.  views: how many of each
// picture.  A picture and a view have less than 2^31 numbers: `int` is enough within one.
extern "C" __global__ void prepare(const unsigned char* __restrict__ x, const float* __restrict__ mean,
                                   const int* __restrict__ windows, const float* __restrict__ colour,
                                   float* __restrict__ y, long long rows, int views, int height, int width, int size,
                                   float scale) {
    long long row = global_thread() / WARP;
    if (row >= rows) return;
    long long view = row / size, n = view / views;
    int i = (int)(row - view * size);
    windows += view * 3;
    int top = windows[0], left = windows[1], mirrored = windows[2];
    int first = ((top + i) * width + left) * CHANNELS;  // where the window's row begins in its picture
    x += n * height * width * CHANNELS + first;
    mean += first;
    y += view * CHANNELS * size * size + i * size;
    float shift[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) shift[c] = colour[n * CHANNELS + c];
    for (int j = threadIdx.x % WARP; j < size; j += WARP) {
        int k = (mirrored ? size - 1 - j : j) * CHANNELS;
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) y[c * size * size + j] = (x[k + c] - mean[k + c] + shift[c]) * scale;
    }
}
