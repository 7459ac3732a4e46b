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
// Windows of 3 x 3 pixels, AlexNet's, are written out, without loops.  In the time that a large card takes to move a
// byte it executes some 10 instructions of a thread: 200 for an output with its window, 50 for a pixel and its
// gradient, in float32.  With more, memory waits for the threads; and loops take several times as many, for tests and
// divisions.
//
// TAP: an unsigned integer type that can hold the number of any tap.  What a thread must know of the place of its
// output (pixel, cell) is in a Layout, whose divisions are as fast as the sizes allow (common.cuh);
// minigrad/ops/max_pool2d.py fills it.

// Pixels and windows along one axis; in the formula's letters size = H, windows = OH, stride = s, padding = p (that
// before the first pixel), dilation = d.
struct Axis {
    int size, windows, taps, stride, padding, dilation;
};

// Looks at a pixel of the window that is tap number `tap`.  NaN wins over every number, and the first NaN over all
// others: a value that is not <= best is larger, or one of the two is NaN.
__device__ __forceinline__ void look(REAL value, int tap, REAL& best, int& winner) {
    if (!(value <= best) && best == best) best = value, winner = tap;
}

// The maximum of a window; winner = u * (taps of a row) + v, the number of the first tap that has it.  Where its first
// pixel lies: at[0], in x; at[1] and at[2], row and column in the padded image.
__device__ __forceinline__ REAL maximum(const REAL* __restrict__ x, const Axis& rows, const Axis& cols,
                                        const Offsets& at, int& winner) {
    int top = (int)at.of[1] - rows.padding, left = (int)at.of[2] - cols.padding;
    x += at.of[0] - (rows.padding * cols.size + cols.padding);
    REAL best = -INFINITY;
    winner = -1;
    if (rows.taps == 3 && cols.taps == 3 && rows.dilation == 1 && cols.dilation == 1) {
        REAL value[3][3];  // all asked for before the first is looked at; padding is -infinity, which never wins
#pragma unroll
        for (int u = 0; u < 3; u++) {
            const REAL* row = x + u * cols.size;
            bool inside = (unsigned)(top + u) < (unsigned)rows.size;
#pragma unroll
            for (int v = 0; v < 3; v++)
                value[u][v] = inside && (unsigned)(left + v) < (unsigned)cols.size ? row[v] : -INFINITY;
        }
#pragma unroll
        for (int tap = 0; tap < 9; tap++) look(value[tap / 3][tap % 3], tap, best, winner);
    } else {
        for (int u = 0; u < rows.taps; u++) {
            int row = top + rows.dilation * u;
            if ((unsigned)row >= (unsigned)rows.size) continue;
            for (int v = 0; v < cols.taps; v++) {
                int col = left + cols.dilation * v;
                if ((unsigned)col < (unsigned)cols.size)
                    look(x[rows.dilation * u * cols.size + cols.dilation * v], u * cols.taps + v, best, winner);
            }
        }
    }
    if (winner < 0) {  // nothing but -infinity: the first tap inside the image
        int u = 0, v = 0;
        while (top + rows.dilation * u < 0) u++;
        while (left + cols.dilation * v < 0) v++;
        winner = u * cols.taps + v;
    }
    return best;
}

extern "C" __global__ void max_pool2d_forward(const REAL* __restrict__ x, REAL* __restrict__ y,
                                              TAP* __restrict__ winner, long long outputs,
                                              const __grid_constant__ Layout places, const __grid_constant__ Axis rows,
                                              const __grid_constant__ Axis cols) {
    long long o = global_thread();
    if (o < outputs) {
        int tap;
        y[o] = maximum(x, rows, cols, offsets_of(places, o), tap);
        winner[o] = (TAP)tap;
    }
}

// The same where no gradient is wanted: nothing is noted.
extern "C" __global__ void max_pool2d_values(const REAL* __restrict__ x, REAL* __restrict__ y, long long outputs,
                                             const __grid_constant__ Layout places, const __grid_constant__ Axis rows,
                                             const __grid_constant__ Axis cols) {
    long long o = global_thread();
    if (o < outputs) {
        int tap;
        y[o] = maximum(x, rows, cols, offsets_of(places, o), tap);
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

extern "C" __global__ void max_pool2d_backward(const REAL* __restrict__ dy, const TAP* __restrict__ winner,
                                               REAL* __restrict__ dx, long long pixels,
                                               const __grid_constant__ Layout places,
                                               const __grid_constant__ Axis rows, const __grid_constant__ Axis cols) {
    long long pixel = global_thread();
    if (pixel < pixels) {
        Offsets at = offsets_of(places, pixel);  // where the outputs of its map begin, row, column
        long long map = at.of[0];
        int row = (int)at.of[1], col = (int)at.of[2];
        int last_row = last_window(rows, row), last_col = last_window(cols, col);
        REAL sum = 0;
        for (int i = first_window(rows, row); i <= last_row; i++) {
            int u = tap_at(rows, i, row);
            if (u < 0) continue;
            for (int j = first_window(cols, col); j <= last_col; j++) {
                int v = tap_at(cols, j, col);
                long long o = map + i * cols.windows + j;
                if (v >= 0 && winner[o] == u * cols.taps + v) sum += dy[o];
            }
        }
        dx[pixel] = sum;
    }
}

// The same for windows of 3 x 3 pixels, 2 apart.  A thread has a cell: the 2 x 2 pixels where window (i,j) begins, or
// would begin.  No windows see them but (i-1,j-1), (i-1,j), (i,j-1) and (i,j), and each of the 9 taps leads to one of
// the four pixels: taps u = 0 and 2 of a row to the first one, of window i and of window i-1; tap 1 to the second.
extern "C" __global__ void max_pool2d_backward_3_by_2(
    const REAL* __restrict__ dy, const TAP* __restrict__ winner, REAL* __restrict__ dx, long long cells,
    const __grid_constant__ Layout places, const __grid_constant__ Axis rows, const __grid_constant__ Axis cols) {
    long long cell = global_thread();
    if (cell < cells) {
        Offsets at = offsets_of(places, cell);  // where window (i,j) lies, where its first pixel would lie, i, j
        int i = (int)at.of[2], j = (int)at.of[3];
        dy += at.of[0];
        winner += at.of[0];
        dx += at.of[1] - (rows.padding * cols.size + cols.padding);
        REAL sum[2][2] = {};
#pragma unroll
        for (int m = 1; m >= 0; m--) {
#pragma unroll
            for (int n = 1; n >= 0; n--) {  // window (i - m, j - n)
                bool exists = (unsigned)(i - m) < (unsigned)rows.windows && (unsigned)(j - n) < (unsigned)cols.windows;
                int o = -m * cols.windows - n, tap = exists ? (int)winner[o] : -1;
                REAL share = exists ? dy[o] : REAL(0);
#pragma unroll
                for (int u = 2 * m; u < (m ? 3 : 2); u++)
#pragma unroll
                    for (int v = 2 * n; v < (n ? 3 : 2); v++)
                        if (tap == 3 * u + v) sum[u % 2][v % 2] += share;
            }
        }
        int top = 2 * i - rows.padding, left = 2 * j - cols.padding;
#pragma unroll
        for (int a = 0; a < 2; a++)
#pragma unroll
            for (int b = 0; b < 2; b++)
                if ((unsigned)(top + a) < (unsigned)rows.size && (unsigned)(left + b) < (unsigned)cols.size)
                    dx[a * cols.size + b] = sum[a][b];
    }
}
