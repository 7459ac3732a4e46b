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
// because where it lies is a sum: the place of its column, plus the step of its depth index.
//
// A block of 8 warps computes a tile of ROWS x 128 numbers.  Tiles of both factors go through shared memory, with two
// buffers for each: while one is multiplied, the other is filled.  A warp has ROWS / 8 rows; each of its lanes has
// every 32nd column, and keeps ROWS / 8 * 4 sums in registers.  Where there are few tiles, the sums are cut into parts
// by depth, each for a block of its own; conv2d_add_parts adds them, always in the same order.

#define BLOCK 256
#define WARPS (BLOCK / WARP)
#define COLUMNS 128                     // of a tile
#define DEPTH (64 / (int)sizeof(REAL))  // of a tile: two pairs of tiles fit 48 KB of shared memory
#define NEAR 8                          // so many threads side by side fetch numbers that lie side by side in depth
#define OUTSIDE (-(1 << 30))            // a row that is in no image, whatever is added to it

// The sizes in the formulas; minigrad/kernel.py has the same struct for NumPy.
struct Convolution {
    int n, groups, cg, og;       // images, groups, input and output channels of a group
    int height, width, oh, ow;   // of x and of y
    int kh, kw, sh, sw, dh, dw;  // kernel, stride, dilation
    int top, left;               // padding
};

// ---------------------------------------------------------------- the product

// Where a column of `right` begins: an offset (64 bits, for it counts whole images), and the row and column of an
// image, which may be in the padding.
struct Origin {
    long long right;
    int row, col;
};

// How far a depth index leads from there; and along a row of `left`.
struct Step {
    long long right;
    int row, col;
    long long left;
};

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

// out = left @ right + bias, for depth begin to end, in the tile at (first_row, first_column).  P is a Product that has
// origin(column), step(k), and out_at(column): where that column of the result lies.  ALONG_DEPTH: what lies side by
// side in memory are neighbours in depth, and not neighbouring columns.
template <int ROWS, bool ALONG_DEPTH, class P>
__device__ __forceinline__ void multiply(const P& p, int first_row, long long first_column, long long begin,
                                         long long end) {
    constexpr int R = ROWS / WARPS, C = COLUMNS / WARP;  // a thread's rows and columns of the result
    constexpr int LEFTS = ROWS * DEPTH / BLOCK;          // what a thread fetches of a tile of left
    constexpr int RIGHTS = COLUMNS * DEPTH / BLOCK;      // and of right, from so many columns:
    constexpr int ORIGINS = ALONG_DEPTH ? COLUMNS * NEAR / BLOCK : 1;
    // Rows are 4 longer than they need be: what NEAR threads write to as many rows, and 4 neighbours in each of these,
    // then lies in 32 different banks.
    __shared__ __align__(16) REAL lefts[2][DEPTH][ROWS + 4];
    __shared__ __align__(16) REAL rights[2][DEPTH][COLUMNS + 4];
    __shared__ Step steps[2][DEPTH];
    const int t = threadIdx.x, lane = t % WARP, warp = t / WARP;

    Origin origins[ORIGINS];
#pragma unroll
    for (int i = 0; i < ORIGINS; i++) {
        long long column = first_column + (ALONG_DEPTH ? t / NEAR + i * (BLOCK / NEAR) : t % COLUMNS);
        origins[i] = column < p.columns ? p.origin(column) : Origin{0, OUTSIDE, OUTSIDE};
    }

    // A step takes divisions: a few threads make those of a tile.
    auto make_steps = [&](int buffer, long long first) {
        if (t < DEPTH) steps[buffer][t] = first + t < end ? p.step(first + t) : Step{0, OUTSIDE, OUTSIDE, -1};
    };

    // Fetched number i of this thread, of left: depth index and row in the tile; of right: depth index and column.
    auto left_k = [=](int i) { return t % NEAR + (t + i * BLOCK) / (NEAR * ROWS) * NEAR; };
    auto left_row = [=](int i) { return (t + i * BLOCK) / NEAR % ROWS; };
    auto right_k = [=](int i) {
        return ALONG_DEPTH ? t % NEAR + i / ORIGINS * NEAR : t / COLUMNS + i * (BLOCK / COLUMNS);
    };
    auto right_column = [=](int i) { return ALONG_DEPTH ? t / NEAR + i % ORIGINS * (BLOCK / NEAR) : t % COLUMNS; };

    REAL l[LEFTS], r[RIGHTS];
    auto fetch = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < LEFTS; i++) {
            const Step& step = steps[buffer][left_k(i)];
            int row = first_row + left_row(i);
            l[i] = row < p.rows && step.left >= 0 ? p.left[row * p.left_row + step.left] : REAL(0);
        }
#pragma unroll
        for (int i = 0; i < RIGHTS; i++) {
            const Step& step = steps[buffer][right_k(i)];
            const Origin& origin = origins[i % ORIGINS];
            // As unsigned numbers, negative ones are large.
            bool inside = (unsigned)(origin.row + step.row) < (unsigned)p.height &
                          (unsigned)(origin.col + step.col) < (unsigned)p.width;
            r[i] = inside ? p.right[origin.right + step.right] : REAL(0);
        }
    };
    auto put = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < LEFTS; i++) lefts[buffer][left_k(i)][left_row(i)] = l[i];
#pragma unroll
        for (int i = 0; i < RIGHTS; i++) rights[buffer][right_k(i)][right_column(i)] = r[i];
    };

    REAL sum[R][C] = {};
    make_steps(0, begin);
    make_steps(1, begin + DEPTH);
    __syncthreads();
    fetch(0);
    put(0);
    __syncthreads();
    int now = 0;
    for (long long first = begin; first < end; first += DEPTH, now ^= 1) {
        bool more = first + DEPTH < end;
        if (more) fetch(now ^ 1);
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            REAL a[R], b[C];
#pragma unroll
            for (int i = 0; i < R; i++) a[i] = lefts[now][k][warp * R + i];
#pragma unroll
            for (int j = 0; j < C; j++) b[j] = rights[now][k][lane + j * WARP];
#pragma unroll
            for (int i = 0; i < R; i++)
#pragma unroll
                for (int j = 0; j < C; j++) sum[i][j] += a[i] * b[j];
        }
        if (more) {
            put(now ^ 1);
            make_steps(now, first + 2 * DEPTH);  // nobody reads the old ones since the last barrier
        }
        __syncthreads();
    }

#pragma unroll
    for (int j = 0; j < C; j++) {
        long long column = first_column + lane + j * WARP;
        if (column >= p.columns) continue;
        REAL* out = p.out + p.out_at(column);
#pragma unroll
        for (int i = 0; i < R; i++) {
            int row = first_row + warp * R + i;
            if (row < p.rows) out[row * p.out_row] = sum[i][j] + (p.bias ? p.bias[row] : REAL(0));
        }
    }
}

// This block's share of a product: a tile, and a part of its sums.  blockIdx.y counts tiles along rows; .z counts
// groups, and for each part anew.
template <int ROWS, bool ALONG_DEPTH, class P>
__device__ __forceinline__ void multiply_tile(P& p, long long tile, int part, long long part_depth,
                                              long long out_size) {
    long long begin = part * part_depth, end = min(begin + part_depth, p.depth);
    p.out += part * out_size;
    if (part > 0) p.bias = nullptr;
    if (tile * COLUMNS < p.columns)  // the same for the whole block: it meets all barriers, or none
        multiply<ROWS, ALONG_DEPTH>(p, blockIdx.y * ROWS, tile * COLUMNS, begin, end);
}

// ---------------------------------------------------------------- y and dx: rows are channels, columns are pixels

// The images along one axis.  Pixel q of the result is its row out_start + out_stride * q.  It takes tap number t of
// the kernel, which is first_tap + tap_stride * t, times row start + stride * q + move * t of `right`.
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
    Axis v, h;                            // vertical, horizontal
    long long right_image, left_channel;  // from one to the next
    long long out_image;
    int out_width, kernel_width;

    __device__ Origin origin(long long column) const {
        long long image = column / (v.pixels * h.pixels);
        int pixel = column - image * v.pixels * h.pixels;
        int row = v.start + v.stride * (pixel / h.pixels), col = h.start + h.stride * (pixel % h.pixels);
        return {image * right_image + (long long)row * width + col, row, col};
    }
    __device__ Step step(long long k) const {
        int channel = (int)k / (v.taps * h.taps), tap = (int)k % (v.taps * h.taps);
        int t_v = tap / h.taps, t_h = tap % h.taps;
        int u = v.first_tap + v.tap_stride * t_v, row = v.move * t_v;
        int s = h.first_tap + h.tap_stride * t_h, col = h.move * t_h;
        return {((long long)channel * height + row) * width + col, row, col,
                channel * left_channel + u * kernel_width + s};
    }
    __device__ long long out_at(long long column) const {
        long long image = column / (v.pixels * h.pixels);
        int pixel = column - image * v.pixels * h.pixels;
        int row = v.out_start + v.out_stride * (pixel / h.pixels),
            col = h.out_start + h.out_stride * (pixel % h.pixels);
        return image * out_image + (long long)row * out_width + col;
    }
};

template <int ROWS>
__device__ __forceinline__ void forward(const REAL* x, const REAL* w, const REAL* b, REAL* y, const Convolution& c,
                                        long long part_depth) {
    const int group = blockIdx.z % c.groups, taps = c.kh * c.kw;
    const long long image = (long long)c.height * c.width, out_image = (long long)c.oh * c.ow;  // of one channel
    Pixels p;
    p.rows = c.og;
    p.columns = c.n * out_image;
    p.depth = (long long)c.cg * taps;
    p.v = forward_axis(c.oh, c.kh, c.sh, c.dh, c.top);
    p.h = forward_axis(c.ow, c.kw, c.sw, c.dw, c.left);
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
    multiply_tile<ROWS, false>(p, blockIdx.x, blockIdx.z / c.groups, part_depth, c.n * p.out_image);
}

// Where w is inf or NaN, dx is NaN also at the border: taps that lead beyond y count as w * 0, not as nothing.
template <int ROWS>
__device__ __forceinline__ void backward_x(const REAL* dy, const REAL* w, REAL* dx, const Convolution& c,
                                           long long part_depth) {
    const int group = blockIdx.z % c.groups, taps = c.kh * c.kw;
    const int phases = c.sh * c.sw, phase = blockIdx.x % phases;
    const long long image = (long long)c.oh * c.ow, out_image = (long long)c.height * c.width;
    Pixels p;
    p.v = backward_axis(c.height, c.kh, c.sh, c.dh, c.top, phase / c.sw);
    p.h = backward_axis(c.width, c.kw, c.sw, c.dw, c.left, phase % c.sw);
    p.rows = c.cg;
    p.columns = (long long)c.n * p.v.pixels * p.h.pixels;
    p.depth = (long long)c.og * p.v.taps * p.h.taps;
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
    multiply_tile<ROWS, false>(p, blockIdx.x / phases, blockIdx.z / c.groups, part_depth, c.n * p.out_image);
}

// ---------------------------------------------------------------- dw: rows are output channels, columns are c,u,v

struct Weights : Product {
    Convolution c;

    __device__ Origin origin(long long column) const {
        int channel = (int)column / (c.kh * c.kw), tap = (int)column % (c.kh * c.kw);
        int row = c.dh * (tap / c.kw), col = c.dw * (tap % c.kw);
        return {((long long)channel * height + row) * width + col, row, col};
    }
    __device__ Step step(long long k) const {
        long long image = k / (c.oh * c.ow);
        int pixel = k - image * c.oh * c.ow;
        int row = c.sh * (pixel / c.ow) - c.top, col = c.sw * (pixel % c.ow) - c.left;
        return {(image * c.groups * c.cg * height + row) * width + col, row, col,
                image * c.groups * c.og * left_row + pixel};
    }
    __device__ long long out_at(long long column) const { return column; }
};

template <int ROWS>
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
    multiply_tile<ROWS, true>(p, blockIdx.x, blockIdx.z / c.groups, part_depth, c.groups * c.og * p.columns);
}

// ---------------------------------------------------------------- entry points

extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_forward_32(
    const REAL* __restrict__ x, const REAL* __restrict__ w, const REAL* __restrict__ b, int has_bias,
    REAL* __restrict__ y, Convolution c, long long part_depth) {
    forward<32>(x, w, has_bias ? b : nullptr, y, c, part_depth);
}
extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_forward_64(
    const REAL* __restrict__ x, const REAL* __restrict__ w, const REAL* __restrict__ b, int has_bias,
    REAL* __restrict__ y, Convolution c, long long part_depth) {
    forward<64>(x, w, has_bias ? b : nullptr, y, c, part_depth);
}

extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_backward_x_32(
    const REAL* __restrict__ dy, const REAL* __restrict__ w, REAL* __restrict__ dx, Convolution c,
    long long part_depth) {
    backward_x<32>(dy, w, dx, c, part_depth);
}
extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_backward_x_64(
    const REAL* __restrict__ dy, const REAL* __restrict__ w, REAL* __restrict__ dx, Convolution c,
    long long part_depth) {
    backward_x<64>(dy, w, dx, c, part_depth);
}

extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_backward_w_32(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dw, Convolution c,
    long long part_depth) {
    backward_w<32>(dy, x, dw, c, part_depth);
}
extern "C" __global__ __launch_bounds__(BLOCK) void conv2d_backward_w_64(
    const REAL* __restrict__ dy, const REAL* __restrict__ x, REAL* __restrict__ dw, Convolution c,
    long long part_depth) {
    backward_w<64>(dy, x, dw, c, part_depth);
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
