// Max-pooling: the largest value under each window.  minigrad/ops/max_pool2d.py.
//
//     y[n,c,i,j] = max over taps (u,v) of x[n,c, s*i + d*u - p, s*j + d*v - p]     (padding is skipped)
//     dx = dy, sent to the pixel that was the maximum, summed where windows overlap
//
// Forward: one thread per output looks through its window, row by row, and notes which tap won.  Neighbouring threads
// read pixels a stride apart; the pixels between them are on the same cache lines, and the next taps read those.
//
// Backward: one thread per pixel of x asks the windows that see it, always in the same order, which of them it won.
// (The other way round, each window would have to add its dy atomically, in an order that changes from run to run.)
//
// TAP: an unsigned integer type that can hold the number of any tap.  Place, place_of and global_thread are those of
// common.cuh, which is put before every kernel file.

// Pixels and windows along one axis; in the formula's letters size = H, windows = OH, stride = s, padding = p (that
// before the first pixel), dilation = d.
struct Axis {
    int size, windows, taps, stride, padding, dilation;
};

// The maximum of window (i,j) of one map; winner = u * (taps of a row) + v, the number of the first tap that has it.
// NaN wins over every number, and the first NaN over all others.
__device__ __forceinline__ REAL maximum(const REAL* __restrict__ map, Axis rows, Axis cols, int i, int j, int& winner) {
    REAL best = 0;
    winner = -1;  // until the first tap inside the image, which wins whatever its value
    for (int u = 0; u < rows.taps; u++) {
        int row = rows.stride * i + rows.dilation * u - rows.padding;
        if (row < 0 || row >= rows.size) continue;
        for (int v = 0; v < cols.taps; v++) {
            int col = cols.stride * j + cols.dilation * v - cols.padding;
            if (col < 0 || col >= cols.size) continue;
            REAL value = map[row * cols.size + col];
            if (winner < 0 || value > best || (isnan(value) && !isnan(best))) {
                best = value;
                winner = u * cols.taps + v;
            }
        }
    }
    return best;
}

extern "C" __global__ void max_pool2d_forward(
    const REAL* __restrict__ x, REAL* __restrict__ y, TAP* __restrict__ winner, long long outputs,
    const __grid_constant__ Axis rows, const __grid_constant__ Axis cols) {
    long long o = global_thread();
    if (o < outputs) {
        Place at = place_of(o, rows.windows, cols.windows);
        int tap;
        y[o] = maximum(x + at.map * rows.size * cols.size, rows, cols, at.row, at.col, tap);
        winner[o] = (TAP)tap;
    }
}

// The same where no gradient is wanted: nothing is noted.
extern "C" __global__ void max_pool2d_values(
    const REAL* __restrict__ x, REAL* __restrict__ y, long long outputs, const __grid_constant__ Axis rows,
    const __grid_constant__ Axis cols) {
    long long o = global_thread();
    if (o < outputs) {
        Place at = place_of(o, rows.windows, cols.windows);
        int tap;
        y[o] = maximum(x + at.map * rows.size * cols.size, rows, cols, at.row, at.col, tap);
    }
}

// The windows that may see a pixel: the first that reaches to it or beyond, and the last that starts at it or before.
__device__ __forceinline__ int first_window(Axis axis, int pixel) {
    int beyond = pixel + axis.padding - axis.dilation * (axis.taps - 1);
    return beyond <= 0 ? 0 : (beyond - 1) / axis.stride + 1;  // rounded up
}
__device__ __forceinline__ int last_window(Axis axis, int pixel) {
    return min((pixel + axis.padding) / axis.stride, axis.windows - 1);
}

// The tap with which a window sees a pixel; -1 if dilated taps pass it by.
__device__ __forceinline__ int tap_at(Axis axis, int window, int pixel) {
    int offset = pixel + axis.padding - axis.stride * window;
    int tap = offset / axis.dilation;
    return tap * axis.dilation == offset ? tap : -1;
}

extern "C" __global__ void max_pool2d_backward(
    const REAL* __restrict__ dy, const TAP* __restrict__ winner, REAL* __restrict__ dx, long long pixels,
    const __grid_constant__ Axis rows, const __grid_constant__ Axis cols) {
    long long pixel = global_thread();
    if (pixel < pixels) {
        Place at = place_of(pixel, rows.size, cols.size);
        long long map = at.map * rows.windows * cols.windows;  // where the outputs of this map begin
        int last_row = last_window(rows, at.row), last_col = last_window(cols, at.col);
        REAL sum = 0;
        for (int i = first_window(rows, at.row); i <= last_row; i++) {
            int u = tap_at(rows, i, at.row);
            if (u < 0) continue;
            for (int j = first_window(cols, at.col); j <= last_col; j++) {
                int v = tap_at(cols, j, at.col);
                long long o = map + i * cols.windows + j;
                if (v >= 0 && winner[o] == u * cols.taps + v) sum += dy[o];
            }
        }
        dx[pixel] = sum;
    }
}
