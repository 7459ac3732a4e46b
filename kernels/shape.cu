// Indexing with arrays: rows of x are taken, put, and given the sum of their gradients.  minigrad/base/indexing.py says
// what a row is; minigrad/ops/shape.py is the op.  The host has worked out the numbers of the rows.
//
//     y[k] = x[rows[k]]               take_rows
//     x[rows[k]] = y[picks[k]]        put_rows: no row is named twice
//     dx[r] = sum of dy[k] with rows[k] = r
//
// One thread moves one element of a row: threads next to each other, elements next to each other.  The Layout says
// which place element i has in its row (array 1), and which row that is (2): k.

extern "C" __global__ void take_rows(T* __restrict__ y, const T* __restrict__ x, const long long* __restrict__ rows,
                                     const __grid_constant__ Layout layout, long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[i] = x[rows[at.of[2]] * length + at.of[1]];
    }
}

extern "C" __global__ void put_rows(T* __restrict__ x, const T* __restrict__ y, const long long* __restrict__ rows,
                                    const long long* __restrict__ picks, const __grid_constant__ Layout layout,
                                    long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        x[rows[at.of[2]] * length + at.of[1]] = y[picks[at.of[2]] * length + at.of[1]];
    }
}

// rows: each row that was taken, once.  Row rows[k] was taken by picks[first[k]], ..., picks[first[k + 1] - 1], and it
// is one thread that adds these up, in that order: no atomics, the same bits every time.
extern "C" __global__ void sum_rows(T* __restrict__ dx, const T* __restrict__ dy, const long long* __restrict__ rows,
                                    const long long* __restrict__ first, const long long* __restrict__ picks,
                                    const __grid_constant__ Layout layout, long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        long long k = at.of[2];
        T sum = 0;
        for (long long pick = first[k]; pick < first[k + 1]; pick++) sum += dy[picks[pick] * length + at.of[1]];
        dx[rows[k] * length + at.of[1]] = sum;
    }
}
