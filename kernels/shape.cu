// Indexing with arrays: rows of x are taken, put, and given the sum of their gradients.  minigrad/base/indexing.py says
// what a row is; minigrad/ops/shape.py is the op.  The host has worked out the numbers of the rows.
//
//     y[k] = x[rows[k]]               take_rows
//     x[rows[k]] = y[picks[k]]        put_rows: no row is named twice
//     dx[r] = sum of dy[k] with rows[k] = r    take_rows_backward
//
// One thread moves one element of a row: threads next to each other, elements next to each other.  Numbers and
// places are 64 bits: a tensor may have more than 2^31 elements.

extern "C" __global__ void take_rows(T* __restrict__ y, const T* __restrict__ x, const long long* __restrict__ rows,
                                     long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        long long k = i / length;
        y[i] = x[rows[k] * length + (i - k * length)];
    }
}

extern "C" __global__ void put_rows(T* __restrict__ x, const T* __restrict__ y, const long long* __restrict__ rows,
                                    const long long* __restrict__ picks, long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        long long k = i / length, at = i - k * length;
        x[rows[k] * length + at] = y[picks[k] * length + at];
    }
}

// rows: each row that was taken, once.  Row rows[k] was taken by picks[first[k]], ..., picks[first[k + 1] - 1], and it
// is one thread that adds these up, in that order: no atomics, the same bits every time.
extern "C" __global__ void take_rows_backward(T* __restrict__ dx, const T* __restrict__ dy,
                                              const long long* __restrict__ rows,
                                              const long long* __restrict__ first,
                                              const long long* __restrict__ picks, long long length, long long n) {
    long long i = global_thread();
    if (i < n) {
        long long k = i / length, at = i - k * length;
        T sum = 0;
        for (long long pick = first[k]; pick < first[k + 1]; pick++) sum += dy[picks[pick] * length + at];
        dx[rows[k] * length + at] = sum;
    }
}
