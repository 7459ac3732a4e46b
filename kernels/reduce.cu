// Sum, mean and maximum over some axes of x.  minigrad/ops/reduce.py.
//
//     y = sum_i x_i        y = sum_i x_i / n        y = max_i x_i
//
// x is read where it lies: `kept` is the Layout of the axes that stay (element o of it is where the row of output o
// begins) and `reduced` that of the axes that go (element i of it is how far x_i lies from there).  A long row is cut
// into pieces of at most `piece` elements, every one with an output of its own; the same kernels then reduce the
// pieces, until there is one.  So a thread adds few numbers one after the other, which is exact enough in float and
// busy enough for one output of 60 million elements; and the order of all additions depends on the shapes alone.
//
// Which kernels?  Threads of a warp should read neighbours:
//     _rows       neighbours belong to one row: a warp per piece, its lanes side by side in it.     Block (32, 8).
//     _columns    neighbours belong to different rows: a lane per row, and 8 threads for each.      Block (32, 8).
//
// FROM and TO: element types of x and y.  Counts and places are 64 bits: a tensor may have more than 2^31 elements.

#define TALL 8      // threads of a block along y
#define AHEAD 8     // elements that a thread asks memory for before it uses the first of them
#define ROW_AXES 2  // of `reduced`, at most: minigrad/ops/_reduction.py sees to it

typedef Wrapping<TO>::type Number;

// ---------------------------------------------------------------- along a row

// use(*at, at, i) for elements i = start, start + step, ... below stop of a row, which begins at `row`.
//
// A row is made of runs, along axis 0 of `reduced`; axis 1, if there is one, leads from run to run.  So a division
// finds the first element, and an addition each further one, or two where a run has ended.
template <class Use>
__device__ __forceinline__ void along_row(const FROM* __restrict__ row, const Layout& reduced, long long start,
                                          long long stop, int step, Use use) {
    const long long far = 1 << 30;  // longer than a piece: how long a run is beyond that makes no difference
    bool one_run = reduced.axes == 1;
    long long size = reduced.size[0], apart = reduced.stride[0][0], run = one_run ? 0 : start / size;
    long long across = step * apart, jump = one_run ? 0 : reduced.stride[0][1] - size * apart;  // to the next run
    int length = (int)min(size, far), left = one_run ? (int)far : (int)min((run + 1) * size - start, far);
    const FROM* at = row + run * jump + start * apart;
    for (long long i = start; i < stop; i += AHEAD * step) {
        int rest = (int)min(stop - i, far);
        FROM value[AHEAD];
        const FROM* place[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (k * step < rest) value[k] = *at;
            place[k] = at;
            at += across;
            for (left -= step; left <= 0; left += length) at += jump;  // a run may be shorter than a step
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (k * step < rest) use(value[k], place[k], i + k * step);
    }
}

// ---------------------------------------------------------------- sums

// y[outputs][pieces]
extern "C" __global__ void sum_rows(
    TO* __restrict__ y, const FROM* __restrict__ x, const __grid_constant__ Layout kept,
    const __grid_constant__ Layout reduced, long long outputs, long long n, long long piece, TO divisor) {
    long long pieces = (n + piece - 1) / piece;
    long long warp = (long long)blockIdx.x * TALL + threadIdx.y;
    if (warp >= outputs * pieces) return;  // a whole warp, and no barrier follows
    long long o = warp / pieces, start = (warp - o * pieces) * piece, stop = min(start + piece, n);
    Number sum = 0;
    along_row(x + offset_of(kept, 0, o), reduced, start + threadIdx.x, stop, WARP,
              [&](FROM value, const FROM*, long long) { sum += (Number)value; });
    sum = warp_sum(sum);
    if (threadIdx.x == 0) y[warp] = (TO)sum / divisor;
}

// y[pieces][outputs]
extern "C" __global__ void sum_columns(
    TO* __restrict__ y, const FROM* __restrict__ x, const __grid_constant__ Layout kept,
    const __grid_constant__ Layout reduced, long long outputs, long long n, long long piece, TO divisor) {
    __shared__ Number sums[TALL][WARP];
    long long tiles = (outputs + WARP - 1) / WARP, p = blockIdx.x / tiles;
    long long o = (blockIdx.x - p * tiles) * WARP + threadIdx.x, stop = min((p + 1) * piece, n);
    Number sum = 0;
    if (o < outputs)
        along_row(x + offset_of(kept, 0, o), reduced, p * piece + threadIdx.y, stop, TALL,
                  [&](FROM value, const FROM*, long long) { sum += (Number)value; });
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && o < outputs) {
        for (int k = 1; k < TALL; k++) sum += sums[k][threadIdx.x];
        y[p * outputs + o] = (TO)sum / divisor;
    }
}

// ---------------------------------------------------------------- maximum

// An element and its number in its row; number -1: none yet.
struct Candidate {
    FROM value;
    long long number;
};

// The larger of two; of equal ones the first; NaN is larger than anything.
__device__ __forceinline__ Candidate larger(Candidate a, Candidate b) {
    if (b.number < 0) return a;
    if (a.number < 0) return b;
    bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
    bool b_is_larger = a_is_nan || b_is_nan ? b_is_nan && !a_is_nan : b.value > a.value;
    bool equal = a_is_nan || b_is_nan ? a_is_nan && b_is_nan : b.value == a.value;
    return b_is_larger || (equal && b.number < a.number) ? b : a;
}

// The winner of elements start, start + step, ... of a row.  numbers: their numbers in the row that they were chosen
// from; a null pointer where they are the row itself.  Later elements have higher numbers, so that of equal ones the
// one that has won stays.  (A value that is not <= best is larger, or one of the two is NaN.)
__device__ __forceinline__ Candidate winner_of(const FROM* __restrict__ x, const long long* __restrict__ numbers,
                                               long long row, const Layout& reduced, long long start, long long stop,
                                               int step) {
    Candidate best = {(FROM)0, -1};
    along_row(x + row, reduced, start, stop, step, [&](FROM value, const FROM* at, long long i) {
        if (best.number < 0 || (!(value <= best.value) && best.value == best.value))
            best = Candidate{value, numbers ? numbers[at - x] : i};
    });
    return best;
}

__device__ __forceinline__ void winners_of_rows(FROM* __restrict__ y, long long* __restrict__ winner,
                                                const FROM* __restrict__ x, const long long* __restrict__ numbers,
                                                const Layout& kept, const Layout& reduced, long long outputs,
                                                long long n, long long piece) {
    long long pieces = (n + piece - 1) / piece;
    long long warp = (long long)blockIdx.x * TALL + threadIdx.y;
    if (warp >= outputs * pieces) return;  // a whole warp, and no barrier follows
    long long o = warp / pieces, start = (warp - o * pieces) * piece, stop = min(start + piece, n);
    Candidate best = winner_of(x, numbers, offset_of(kept, 0, o), reduced, start + threadIdx.x, stop, WARP);
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        FROM value = (FROM)__shfl_xor_sync(ALL_LANES, best.value, distance);
        best = larger(best, Candidate{value, __shfl_xor_sync(ALL_LANES, best.number, distance)});
    }
    if (threadIdx.x == 0) y[warp] = best.value, winner[warp] = best.number;
}

__device__ __forceinline__ void winners_of_columns(FROM* __restrict__ y, long long* __restrict__ winner,
                                                   const FROM* __restrict__ x, const long long* __restrict__ numbers,
                                                   const Layout& kept, const Layout& reduced, long long outputs,
                                                   long long n, long long piece) {
    __shared__ FROM values[TALL][WARP];
    __shared__ long long at[TALL][WARP];
    long long tiles = (outputs + WARP - 1) / WARP, p = blockIdx.x / tiles;
    long long o = (blockIdx.x - p * tiles) * WARP + threadIdx.x, stop = min((p + 1) * piece, n);
    Candidate best = {(FROM)0, -1};
    if (o < outputs)
        best = winner_of(x, numbers, offset_of(kept, 0, o), reduced, p * piece + threadIdx.y, stop, TALL);
    values[threadIdx.y][threadIdx.x] = best.value;
    at[threadIdx.y][threadIdx.x] = best.number;
    __syncthreads();
    if (threadIdx.y == 0 && o < outputs) {
        for (int k = 1; k < TALL; k++) best = larger(best, Candidate{values[k][threadIdx.x], at[k][threadIdx.x]});
        y[p * outputs + o] = best.value, winner[p * outputs + o] = best.number;
    }
}

extern "C" __global__ void max_rows(
    FROM* __restrict__ y, long long* __restrict__ winner, const FROM* __restrict__ x,
    const __grid_constant__ Layout kept, const __grid_constant__ Layout reduced, long long outputs, long long n,
    long long piece) {
    winners_of_rows(y, winner, x, nullptr, kept, reduced, outputs, n, piece);
}

extern "C" __global__ void max_columns(
    FROM* __restrict__ y, long long* __restrict__ winner, const FROM* __restrict__ x,
    const __grid_constant__ Layout kept, const __grid_constant__ Layout reduced, long long outputs, long long n,
    long long piece) {
    winners_of_columns(y, winner, x, nullptr, kept, reduced, outputs, n, piece);
}

// The same for pieces: x holds their maxima, numbers who they were.

extern "C" __global__ void max_rows_of_pieces(
    FROM* __restrict__ y, long long* __restrict__ winner, const FROM* __restrict__ x,
    const long long* __restrict__ numbers, const __grid_constant__ Layout kept,
    const __grid_constant__ Layout reduced, long long outputs, long long n, long long piece) {
    winners_of_rows(y, winner, x, numbers, kept, reduced, outputs, n, piece);
}

extern "C" __global__ void max_columns_of_pieces(
    FROM* __restrict__ y, long long* __restrict__ winner, const FROM* __restrict__ x,
    const long long* __restrict__ numbers, const __grid_constant__ Layout kept,
    const __grid_constant__ Layout reduced, long long outputs, long long n, long long piece) {
    winners_of_columns(y, winner, x, numbers, kept, reduced, outputs, n, piece);
}

// dx[outputs][n], filled with 0: each row gets its dy where its winner is.
extern "C" __global__ void max_backward(FROM* __restrict__ dx, const FROM* __restrict__ dy,
                                        const long long* __restrict__ winner, long long outputs, long long n) {
    long long o = global_thread();
    if (o < outputs) dx[o * n + winner[o]] = dy[o];
}
