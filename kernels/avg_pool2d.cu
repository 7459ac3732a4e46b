// Average-pooling: the mean under each window.  minigrad/ops/avg_pool2d.py.
//
//     y[n,c,i,j] = sum over taps (u,v) of x[n,c, s*i + u - p, s*j + v - p] / divisor[i,j]     (padding is 0)
//     dx = the sum over the windows that see a pixel of dy / divisor
//
// Forward: one thread per output.  Backward: one thread per pixel of x, which asks the windows that see it, always in
// the same order; no two threads add to one number.
//
// Windows of 3 x 3 pixels are written out, as in max_pool2d.cu, for the same reason.

// Pixels and windows along one axis; in the formula's letters size = H, windows = OH, stride = s.
struct Axis {
    int size, windows, taps, stride;
    int before, after;  // padding at the two ends: p is `before`
};

// Pixels start..stop-1 of window number i, clipped to the image.
__device__ __forceinline__ int start_of(Axis axis, int i) { return max(axis.stride * i - axis.before, 0); }
__device__ __forceinline__ int stop_of(Axis axis, int i) {
    return min(axis.stride * i - axis.before + axis.taps, axis.size);
}

// How many positions of window i count: those inside the padded image, or those inside the image.
__device__ __forceinline__ int extent(Axis axis, int i, int count_include_pad) {
    if (!count_include_pad) return stop_of(axis, i) - start_of(axis, i);
    int start = axis.stride * i - axis.before;
    return min(start + axis.taps, axis.size + axis.after) - start;
}

__device__ __forceinline__ REAL divisor(Axis rows, Axis cols, int i, int j, int count_include_pad) {
    return (REAL)extent(rows, i, count_include_pad) * (REAL)extent(cols, j, count_include_pad);
}

extern "C" __global__ void avg_pool2d_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long outputs,
                                              const __grid_constant__ Layout places, const __grid_constant__ Axis rows,
                                              const __grid_constant__ Axis cols, int count_include_pad) {
    long long o = global_thread();
    if (o < outputs) {
        Offsets at = offsets_of(places, o);  // where its map begins in x, i, j
        int i = (int)at.of[1], j = (int)at.of[2], row_stop = stop_of(rows, i), col_stop = stop_of(cols, j);
        x += at.of[0];
        REAL sum = 0;
        if (rows.taps == 3 && cols.taps == 3) {
            int top = rows.stride * i - rows.before, left = cols.stride * j - cols.before;
#pragma unroll
            for (int row = top; row < top + 3; row++)
#pragma unroll
                for (int col = left; col < left + 3; col++) {
                    bool inside = row >= 0 && row < row_stop && col >= 0 && col < col_stop;
                    sum += inside ? x[row * cols.size + col] : REAL(0);
                }
        } else {
            for (int row = start_of(rows, i); row < row_stop; row++) {
                REAL of_row = 0;  // a sum of its own: all taps of a large window in a row would lose digits
                for (int col = start_of(cols, j); col < col_stop; col++) of_row += x[row * cols.size + col];
                sum += of_row;
            }
        }
        y[o] = sum / divisor(rows, cols, i, j, count_include_pad);
    }
}

// The first and the last window that see a pixel.
__device__ __forceinline__ int first_window(Axis axis, int pixel) {
    int beyond = pixel + axis.before - (axis.taps - 1);
    return beyond <= 0 ? 0 : (beyond - 1) / axis.stride + 1;  // rounded up
}
__device__ __forceinline__ int last_window(Axis axis, int pixel) {
    return min((pixel + axis.before) / axis.stride, axis.windows - 1);
}

extern "C" __global__ void avg_pool2d_backward(const REAL* __restrict__ dy, REAL* __restrict__ dx, long long pixels,
                                               const __grid_constant__ Layout places,
                                               const __grid_constant__ Axis rows, const __grid_constant__ Axis cols,
                                               int count_include_pad) {
    long long pixel = global_thread();
    if (pixel < pixels) {
        Offsets at = offsets_of(places, pixel);  // where its map begins in dy, row, column
        int last_row = last_window(rows, (int)at.of[1]), last_col = last_window(cols, (int)at.of[2]);
        int first_row = first_window(rows, (int)at.of[1]), first_col = first_window(cols, (int)at.of[2]);
        dy += at.of[0];
        REAL sum = 0;
        for (int i = first_row; i <= last_row; i++) {
            REAL of_row = 0;
            for (int j = first_col; j <= last_col; j++)
                of_row += dy[i * cols.windows + j] / divisor(rows, cols, i, j, count_include_pad);
            sum += of_row;
        }
        dx[pixel] = sum;
    }
}

// The same for windows of 3 x 3 pixels, 2 apart.  A thread has a cell: the 2 x 2 pixels where window (i,j) begins, or
// would begin.  All four are seen by that window; those of the first row also by the one above, of the first column by
// the one to the left, and the first by the one between these.
extern "C" __global__ void avg_pool2d_backward_3_by_2(const REAL* __restrict__ dy, REAL* __restrict__ dx,
                                                      long long cells, const __grid_constant__ Layout places,
                                                      const __grid_constant__ Axis rows,
                                                      const __grid_constant__ Axis cols, int count_include_pad) {
    long long cell = global_thread();
    if (cell < cells) {
        Offsets at = offsets_of(places, cell);  // where window (i,j) lies, where its first pixel would lie, i, j
        int i = (int)at.of[2], j = (int)at.of[3];
        dy += at.of[0];
        dx += at.of[1] - (rows.before * cols.size + cols.before);
        REAL share[2][2];  // dy / divisor of windows (i - m, j - n)
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < 2; n++) {
                bool exists = (unsigned)(i - m) < (unsigned)rows.windows && (unsigned)(j - n) < (unsigned)cols.windows;
                REAL area = exists ? divisor(rows, cols, i - m, j - n, count_include_pad) : REAL(1);
                share[m][n] = exists ? dy[-m * cols.windows - n] / area : REAL(0);
            }
        int top = 2 * i - rows.before, left = 2 * j - cols.before;
        bool row[2] = {top >= 0 && top < rows.size, top + 1 >= 0 && top + 1 < rows.size};
        bool col[2] = {left >= 0 && left < cols.size, left + 1 >= 0 && left + 1 < cols.size};
        REAL first = share[0][1] + share[0][0], above = share[1][1] + share[1][0];
        if (row[0] && col[0]) dx[0] = above + first;
        if (row[0] && col[1]) dx[1] = share[1][0] + share[0][0];
        if (row[1] && col[0]) dx[cols.size] = first;
        if (row[1] && col[1]) dx[cols.size + 1] = share[0][0];
    }
}
