// Softmax and its logarithm along one axis.  minigrad/ops/softmax.py.
//
//     s = x - max(x)
//     softmax:      y = exp(s) / sum(exp(s))          dx = y * (dy - sum(dy * y))
//     log_softmax:  y = s - log(sum(exp(s)))          dx = dy - exp(y) * sum(dy)
//
// The arrays are (outer, length, inner), and max and sums run along `length`: there are outer * inner lines.  Where
// inner is 1 a line lies in one piece, and a block works on it together (Row).  Otherwise each thread has a line of its
// own (Column): neighbouring threads read neighbouring addresses.  Sizes have 64 bits: any of them may pass 2^31.

// The elements of one line that this thread visits are first, first + step, ... below end; most() and sum() combine
// what the threads of the line have found, in all of them.
struct Row {
    long long first, end, step;
    REAL* warps;
    __device__ Row(long long line, long long length, long long, REAL* warps)
        : first(line * length + threadIdx.x), end((line + 1) * length), step(blockDim.x), warps(warps) {}
    __device__ REAL most(REAL value) { return block_max(value, warps); }
    __device__ REAL sum(REAL value) { return block_sum(value, warps); }
};

struct Column {
    long long first, end, step;
    __device__ Column(long long line, long long length, long long inner)
        : first(line / inner * length * inner + line % inner), end(first + length * inner), step(inner) {}
    __device__ REAL most(REAL value) { return value; }
    __device__ REAL sum(REAL value) { return value; }
};

// formula(line) for every line.
template <class Formula>
__device__ __forceinline__ void along_axis(long long lines, long long length, long long inner, REAL* warps,
                                           Formula formula) {
    if (inner == 1)
        for (long long line = blockIdx.x; line < lines; line += gridDim.x) formula(Row(line, length, inner, warps));
    else
        for (long long line = global_thread(); line < lines; line += global_threads())
            formula(Column(line, length, inner));
}

// max(x) of a line.  fmax passes NaN over, but x - max(x) is NaN then, and so is the sum.
template <class Line>
__device__ __forceinline__ REAL max_of(const REAL* __restrict__ x, Line line) {
    REAL most = -INFINITY;
    for (long long i = line.first; i < line.end; i += line.step) most = fmax(most, x[i]);
    return line.most(most);
}

// The sum of term(i) over the elements i of a line.  A thread adds PIECE of them at most one after the other, and then
// the sums of these: with a long line, small terms would be lost beside the sum of all that came before them.
#define PIECE 128

template <class Line, class Term>
__device__ __forceinline__ REAL sum_of(Line line, Term term) {
    REAL total = 0;
    for (long long i = line.first; i < line.end;) {
        REAL piece = 0;
        for (int k = 0; k < PIECE && i < line.end; k++, i += line.step) piece += term(i);
        total += piece;
    }
    return line.sum(total);
}

extern "C" __global__ void softmax_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long lines,
                                           long long length, long long inner) {
    __shared__ REAL warps[WARP];
    along_axis(lines, length, inner, warps, [=](auto line) {
        REAL most = max_of(x, line);
        REAL total = sum_of(line, [=](long long i) { return exp(x[i] - most); });
        for (long long i = line.first; i < line.end; i += line.step) y[i] = exp(x[i] - most) / total;
    });
}

extern "C" __global__ void softmax_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                            REAL* __restrict__ dx, long long lines, long long length,
                                            long long inner) {
    __shared__ REAL warps[WARP];
    along_axis(lines, length, inner, warps, [=](auto line) {
        REAL total = sum_of(line, [=](long long i) { return dy[i] * y[i]; });
        for (long long i = line.first; i < line.end; i += line.step) dx[i] = y[i] * (dy[i] - total);
    });
}

extern "C" __global__ void log_softmax_forward(const REAL* __restrict__ x, REAL* __restrict__ y, long long lines,
                                               long long length, long long inner) {
    __shared__ REAL warps[WARP];
    along_axis(lines, length, inner, warps, [=](auto line) {
        REAL most = max_of(x, line);
        REAL log_total = log(sum_of(line, [=](long long i) { return exp(x[i] - most); }));
        for (long long i = line.first; i < line.end; i += line.step) y[i] = x[i] - most - log_total;
    });
}

extern "C" __global__ void log_softmax_backward(const REAL* __restrict__ dy, const REAL* __restrict__ y,
                                                REAL* __restrict__ dx, long long lines, long long length,
                                                long long inner) {
    __shared__ REAL warps[WARP];
    along_axis(lines, length, inner, warps, [=](auto line) {
        REAL total = sum_of(line, [=](long long i) { return dy[i]; });
        for (long long i = line.first; i < line.end; i += line.step) dx[i] = dy[i] - exp(y[i]) * total;
    });
}
