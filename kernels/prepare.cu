// Views of pictures, prepared for a net: minigrad/ops/prepare.py.
//
//     y[n,v,c,i,j] = (x[n,top+i,left+k,c] - mean[top+i,left+k,c] + colour[n,c]) * scale
//     k = j, or size-1-j in a mirrored view;  top, left and mirrored belong to view v of picture n
//
// The pictures are bytes, whole, and channels-last, as they were decoded; the views are planes of floats, one for each
// channel.  In this order, no product is added to anything: the compiler has nothing to fuse, each step is rounded, and
// the bits are NumPy's.
//
// A block has a tile of TILE x TILE pixels of one view, a warp one row of it at a time; a thread stays in its column and
// has every ROWS-th row.  So the grid says which view, row and column it is, and nothing is divided but once.  A warp
// writes 32 floats in a row.  What it reads lies together too: 32 pixels of the picture, one byte of each at a time, of
// which the cache keeps the others, and their means.  The mean image comes from memory once, then from the cache.

#ifndef CHANNELS
#define CHANNELS 3
#endif
#define TILE 32
#define ROWS 8

// windows: for each view top, left, and 1 if it is mirrored.  views: how many of each picture.  In bytes and in floats,
// a picture and a view have less than 2^31: `int` is enough within one.
extern "C" __global__ void prepare(const unsigned char* __restrict__ x, const float* __restrict__ mean,
                                   const int* __restrict__ windows, const float* __restrict__ colour,
                                   float* __restrict__ y, int views, int height, int width, int size, float scale) {
    int view = blockIdx.x, n = view / views;
    windows += (long long)view * 3;
    int top = windows[0], left = windows[1], mirrored = windows[2];
    int j = blockIdx.z * TILE + threadIdx.x, k = mirrored ? size - 1 - j : j;
    if (j >= size) return;
    x += (long long)n * height * width * CHANNELS;
    y += (long long)view * CHANNELS * size * size;
    float shift[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) shift[c] = colour[(long long)n * CHANNELS + c];
#pragma unroll
    for (int r = 0; r < TILE; r += ROWS) {
        int i = blockIdx.y * TILE + threadIdx.y + r;
        if (i < size) {
            int pixel = ((top + i) * width + left + k) * CHANNELS;
#pragma unroll
            for (int c = 0; c < CHANNELS; c++)
                y[(c * size + i) * size + j] = (x[pixel + c] - mean[pixel + c] + shift[c]) * scale;
        }
    }
}
