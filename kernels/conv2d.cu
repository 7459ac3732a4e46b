// Convolution: minigrad/ops/conv2d.py.  With stride s, dilation d and padding p, and x = 0 outside the image,
//
//     y[n,o,i,j]  = b[o] + sum over c,u,v of  w[o,c,u,v] * x[n, c, s*i + d*u - p, s*j + d*v - p]
//     dx[n,c,h,l] = sum over o,u,v and those i,j with s*i + d*u - p = h, s*j + d*v - p = l of  w[o,c,u,v] * dy[n,o,i,j]
//     dw[o,c,u,v] = sum over n,i,j of  dy[n,o,i,j] * x[n, c, s*i + d*u - p, s*j + d*v - p]
//     db[o]       = sum over n,i,j of  dy[n,o,i,j]
//
// db is a sum like any other, and made by kernels/reduce.cu.  The first three are matrix products, of `left` (rows x
// depth) and `right` (depth x columns), one for each group:
//
//              rows    columns                depth       left    right
//       y      o       output pixels n,i,j    c,u,v       w       x
//       dx     c       input pixels n,h,l     o,u,v       w       dy
//       dw     o       c,u,v                  n,i,j       dy      x
//
// `right` is never stored: each element is looked up in its image when it is needed ("implicit GEMM").  That is cheap,
// because its address is a sum of two: where its column begins (Origin) and how far its depth index leads on (Step).
//
// tile_product.cuh multiplies, tile by tile; this file says where the factors lie.  Where there are few tiles, the sums
// are cut into parts by depth, each for a block of its own; conv2d_add_parts adds them, always in the same order.
//
// kernels/ladder/ leads here in four steps, from one thread per output; `python benchmarks/kernel_ladder.py` counts
// what each of them saves (benchmarks/results/kernel_ladder.md).

#include "instructions.cuh"
#include "tile_product.cuh"

#define SPAN THREADS          // so many steps are looked up at a time, one by each thread
#define OUTSIDE (-(1 << 30))  // a row in no image, also with a row or another OUTSIDE added: two just fit an int

// The sizes in the formulas.
struct Convolution {
    int n, groups, cg, og;       // images, groups, input and output channels of a group
    int height, width, oh, ow;   // of x and of y
    int kh, kw, sh, sw, dh, dw;  // kernel, stride, dilation
    int top, left;               // padding
};

// ---------------------------------------------------------------- the product

// Where a column of `right` begins: in memory, and at which row and column of an image, which may be in the padding.
struct __align__(16) Origin {
    const REAL* right;
    int row, col;
};

// How far a depth index leads from there (64 bits, for it may count whole images); and along a row of `left`.
struct __align__(16) Step {
    long long right;
    int row, col;
};
struct Steps {
    Step right;
    long long left;
};

// An Origin or a Step, read in one access of 16 bytes; member by member it would be three.
template <class PLACE>
__device__ __forceinline__ PLACE in_one_access(const PLACE& place) {
    struct __align__(16) Words {
        int of[4];
    };
    union {
        Words words;
        PLACE place;
    } read = {*(const Words*)&place};
    return read.place;
}

struct Product {
    const REAL* left;
    long long left_row;  // from one row to the next
    const REAL* right;
    int height, width;  // of the images of right
    int rows;
    long long columns, depth;
    REAL* out;
    long long out_row;
    const REAL* bias;  // a number for each row, or null
};

// What the threads of a block look up for each other, for it takes divisions.
struct Table {
    Origin origins[TILE_COLUMNS];
    Step steps[SPAN];
    long long lefts[SPAN];  // along a row of left; -1: beyond the depth
};

// The factors of a product, as tile_product.cuh asks for them, in the tile at (first_row, first_column).  P is a
// Product that has origin(column), steps(k), and out_at(column): where that column of the result lies.  ALONG_K: what
// lies side by side in `right` are neighbours in depth, and not neighbouring columns.
template <bool ALONG_K, class P>
struct Factors {
    typedef Share<REAL, TILE_ROWS, true> Left;
    typedef Share<REAL, TILE_COLUMNS, ALONG_K> Right;
    const P& p;
    const REAL* first_left;  // of this thread's rows
    int rows;                // that are there, from the first on
    long long end;           // of the depth
    Table& table;
    int done = SPAN;  // of the steps that it has

    __device__ Factors(const P& p, int first_row, long long first_column, long long end, Table& table)
        : p(p), first_left(p.left + (first_row + Left::at(0)) * p.left_row), rows(p.rows - first_row - Left::at(0)),
          end(end), table(table) {
        long long column = first_column + threadIdx.x;
        if (threadIdx.x < TILE_COLUMNS)
            table.origins[threadIdx.x] = column < p.columns ? p.origin(column) : Origin{p.right, OUTSIDE, OUTSIDE};
    }

    template <class LEFTS, class RIGHTS>
    __device__ void fetch(LEFTS& lefts, RIGHTS& rights, long long depth) {
        if (done == SPAN) {  // once for many tiles: the next steps, one by each thread
            int t = threadIdx.x;
            Steps steps = t < depth ? p.steps(end - depth + t) : Steps{{0, OUTSIDE, OUTSIDE}, -1};
            table.steps[t] = steps.right;
            table.lefts[t] = steps.left;
            __syncthreads();
            done = 0;
        }

        long long along = table.lefts[done + Left::k(0)];
        const long long apart = Left::APART * p.left_row;
        const REAL* row = first_left + along;
#pragma unroll
        for (int i = 0; i < Left::COUNT; i++, row += apart)
            copy_async<sizeof(REAL)>(&lefts[Left::k(i)][Left::at(i)], row, along >= 0 && i * Left::APART < rows);

        const unsigned height = p.height, width = p.width;
        const REAL* from[Right::COUNT];
        bool inside[Right::COUNT];
#pragma unroll
        for (int i = 0; i < Right::COUNT; i++) {
            Origin origin = in_one_access(table.origins[Right::at(i)]);
            Step step = in_one_access(table.steps[done + Right::k(i)]);
            from[i] = origin.right + step.right;
            // One comparison tests both borders: as an unsigned number, a negative one is large.
            inside[i] = (unsigned)(origin.row + step.row) < height & (unsigned)(origin.col + step.col) < width;
        }
#pragma unroll
        for (int i = 0; i < Right::COUNT; i++)
            copy_async<sizeof(REAL)>(&rights[Right::k(i)][Right::at(i)], from[i], inside[i]);
        done += Left::DEPTH;
    }
};

// This block's share of a product, out = left @ right + bias: a tile, and a part of its sums.  blockIdx.y counts tiles
// along rows; .z counts groups, and for each part anew.
template <bool ALONG_K, class P>
__device__ __forceinline__ void multiply_tile(const P& p, long long tile, int part, long long part_depth,
                                              long long out_size) {
    long long first_column = tile * TILE_COLUMNS;
    if (first_column >= p.columns) return;  // the same for the whole block: it meets all barriers, or none
    int first_row = blockIdx.y * TILE_ROWS;
    long long begin = part * part_depth, end = min(begin + part_depth, p.depth);
    __shared__ Table table;
    Factors<ALONG_K, P> factors(p, first_row, first_column, end, table);
    tile_product<REAL, TileSums<REAL, REAL>>(factors, end - begin, [&](int row, REAL sum) {
        long long column = first_column + threadIdx.x % TILE_COLUMNS;
        row += first_row;
        if (row >= p.rows || column >= p.columns) return;
        if (p.bias && part == 0) sum += p.bias[row];
        p.out[part * out_size + p.out_at(column) + row * p.out_row] = sum;
    });
}

// ---------------------------------------------------------------- y and dx: rows are channels, columns are pixels

// The images along one axis: down (the formula's i, u, h) or across (j, v, l).  Pixel q of the result is its row (or
// column) out_start + out_stride * q.  It takes tap number t, which is tap first_tap + tap_stride * t of the kernel,
// times row start + stride * q + move * t of `right`.
struct Axis {
    int pixels, out_start, out_stride;
    int taps, first_tap, tap_stride;
    int start, stride, move;
};

__device__ __forceinline__ Axis forward_axis(int pixels, int taps, int stride, int dilation, int padding) {
    return {pixels, 0, 1, taps, 0, 1, -padding, stride, dilation};
}

// dx[h] takes dy[i] * w[u] for s*i = h + p - d*u.  So pixels h = phase, phase + s, phase + 2s, ... all take the same
// taps: those u for which s divides phase + p - d*u.  These are every `step`-th, if there is a first; from one to the
// next, i goes back by d * step / s.
__device__ __forceinline__ Axis backward_axis(int size, int taps, int stride, int dilation, int padding, int phase) {
    int first = 0, step = 1;
    while (first < taps && (phase + padding - dilation * first) % stride != 0) first++;
    while (dilation * step % stride != 0) step++;
    int pixels = (size - phase + stride - 1) / stride, taps_here = (taps - first + step - 1) / step;
    int start = (phase + padding - dilation * first) / stride, move = -(dilation * step / stride);
    return {pixels, phase, stride, taps_here, first, step, start, 1, move};
}

struct Pixels : Product {
    Axis down, across;
    long long right_image, left_channel;  // from one to the next
    long long out_image;
    int out_width, kernel_width;

    __device__ Origin origin(long long column) const {
        long long image = column / (down.pixels * across.pixels);
        int pixel = column - image * down.pixels * across.pixels;
        int row = down.start + down.stride * (pixel / across.pixels),
            col = across.start + across.stride * (pixel % across.pixels);
        return {right + image * right_image + (long long)row * width + col, row, col};
    }
    __device__ Steps steps(long long k) const {
        int channel = (int)k / (down.taps * across.taps), tap = (int)k % (down.taps * across.taps);
        int t_u = tap / across.taps, t_v = tap % across.taps;
        int u = down.first_tap + down.tap_stride * t_u, row = down.move * t_u;
        int v = across.first_tap + across.tap_stride * t_v, col = across.move * t_v;
        return {{((long long)channel * height + row) * width + col, row, col},
                channel * left_channel + u * kernel_width + v};
    }
    __device__ long long out_at(long long column) const {
        long long image = column / (down.pixels * across.pixels);
        int pixel = column - image * down.pixels * across.pixels;
        int row = down.out_start + down.out_stride * (pixel / across.pixels),
            col = across.out_start + across.out_stride * (pixel % across.pixels);
        return image * out_image + (long long)row * out_width + col;
    }
};

__device__ __forceinline__ void forward(const REAL* x, const REAL* w, const REAL* b, REAL* y, const Convolution& c,
                                        long long part_depth) {
    const int group = blockIdx.z % c.groups, taps = c.kh * c.kw;
    const long long image = (long long)c.height * c.width, out_image = (long long)c.oh * c.ow;  // of one channel
    Pixels p;
    p.rows = c.og;
    p.columns = c.n * out_image;
    p.depth = (long long)c.cg * taps;
    p.down = forward_axis(c.oh, c.kh, c.sh, c.dh, c.top);
    p.across = forward_axis(c.ow, c.kw, c.sw, c.dw, c.left);
    p.left = w + group * c.og * p.depth;
    p.left_row = p.depth;
    p.left_channel = taps;
    p.kernel_width = c.kw;
    p.right = x + group * c.cg * image;
    p.right_image = c.groups * c.cg * image;
    p.height = c.height;
    p.width = c.width;
    p.out = y + group * c.og * out_image;
    p.out_row = out_image;
    p.out_image = c.groups * c.og * out_image;
    p.out_width = c.ow;
    p.bias = b == nullptr ? b : b + group * c.og;
    multiply_tile<false>(p, blockIdx.x, blockIdx.z / c.groups, part_depth, c.n * p.out_image);
}

// Where w is inf or NaN, dx is NaN also at the border: taps that lead beyond y count as w * 0, not as nothing.
__device__ __forceinline__ void backward_x(const REAL* dy, const REAL* w, REAL* dx, const Convolution& c,
                                           long long part_depth) {
    const int group = blockIdx.z % c.groups, taps = c.kh * c.kw;
    const int phases = c.sh * c.sw, phase = blockIdx.x % phases;
    const long long image = (long long)c.oh * c.ow, out_image = (long long)c.height * c.width;
    __shared__ Pixels p;  // so many numbers would fill the registers that sums need: one thread works them out for all
    if (threadIdx.x == 0) {
        p.down = backward_axis(c.height, c.kh, c.sh, c.dh, c.top, phase / c.sw);
        p.across = backward_axis(c.width, c.kw, c.sw, c.dw, c.left, phase % c.sw);
        p.rows = c.cg;
        p.columns = (long long)c.n * p.down.pixels * p.across.pixels;
        p.depth = (long long)c.og * p.down.taps * p.across.taps;
        p.left = w + group * c.og * (long long)c.cg * taps;
        p.left_row = taps;
        p.left_channel = (long long)c.cg * taps;
        p.kernel_width = c.kw;
        p.right = dy + group * c.og * image;
        p.right_image = c.groups * c.og * image;
        p.height = c.oh;
        p.width = c.ow;
        p.out = dx + group * c.cg * out_image;
        p.out_row = out_image;
        p.out_image = c.groups * c.cg * out_image;
        p.out_width = c.width;
        p.bias = nullptr;
    }
    __syncthreads();
    multiply_tile<false>(p, blockIdx.x / phases, blockIdx.z / c.groups, part_depth, c.n * p.out_image);
}

// ---------------------------------------------------------------- dw: rows are output channels, columns are c,u,v

struct Weights : Product {
    Convolution c;

    __device__ Origin origin(long long column) const {
        int channel = (int)column / (c.kh * c.kw), tap = (int)column % (c.kh * c.kw);
        int row = c.dh * (tap / c.kw), col = c.dw * (tap % c.kw);
        return {right + ((long long)channel * height + row) * width + col, row, col};
    }
    __device__ Steps steps(long long k) const {
        long long image = k / (c.oh * c.ow);
        int pixel = k - image * c.oh * c.ow;
        int row = c.sh * (pixel / c.ow) - c.top, col = c.sw * (pixel % c.ow) - c.left;
        return {{(image * c.groups * c.cg * height + row) * width + col, row, col},
                image * c.groups * c.og * left_row + pixel};
    }
    __device__ long long out_at(long long column) const { return column; }
};

__device__ __forceinline__ void backward_w(const REAL* dy, const REAL* x, REAL* dw, const Convolution& c,
                                           long long part_depth) {
    const int group = blockIdx.z % c.groups;
    const long long image = (long long)c.height * c.width, out_image = (long long)c.oh * c.ow;
    Weights p;
    p.c = c;
    p.rows = c.og;
    p.columns = (long long)c.cg * c.kh * c.kw;
    p.depth = c.n * out_image;
    p.left = dy + group * c.og * out_image;
    p.left_row = out_image;
    p.right = x + group * c.cg * image;
    p.height = c.height;
    p.width = c.width;
    p.out = dw + group * c.og * p.columns;
    p.out_row = p.columns;
    p.bias = nullptr;
    multiply_tile<true>(p, blockIdx.x, blockIdx.z / c.groups, part_depth, c.groups * c.og * p.columns);
}

// ---------------------------------------------------------------- entry points

extern "C" __global__ __launch_bounds__(THREADS, RESIDENT<REAL>) void conv2d_forward(
    const REAL* __restrict__ x, const REAL* __restrict__ w, const REAL* __restrict__ b, int has_bias,
    REAL* __restrict__ y, Convolution c, long long part_depth) {
    forward(x, w, has_bias ? b : nullptr, y, c, part_depth);
}
extern "C" __global__ __launch_bounds__(THREADS, RESIDENT<REAL>) void conv2d_backward_x(
    const REAL* __restrict__ dy, const REAL* __restrict__ w, REAL* __restrict__ dx, Convolution c,
    long long part_depth) {
    backward_x(dy, w, dx, c, part_depth);
}
extern "C" __global__ __launch_bounds__(THREADS, RESIDENT<REAL>) void conv2d_backward_w(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dw, Convolution c,
    long long part_depth) {
    backward_w(dy, x, dw, c, part_depth);
}

// y = the sum of `count` arrays of n numbers each, one after the other in `parts`.
extern "C" __global__ void conv2d_add_parts(
    const REAL* __restrict__ parts, REAL* __restrict__ y, int count, long long n) {
    long long i = global_thread();
    if (i < n) {
        REAL sum = 0;
        for (int part = 0; part < count; part++) sum += parts[part * n + i];
        y[i] = sum;
    }
}
