// Comparisons, element by element: y = a == b, a != b, a < b, a <= b, a > b, a >= b.  NaN is unequal to everything, and
// neither less nor greater.  minigrad/ops/compare.py.
//
// One thread compares one pair.  a and b broadcast: the Layout says where element i lies in y (array 0), a (1) and
// b (2).

extern "C" __global__ void equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                 Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] == b[at.of[2]];
    }
}

extern "C" __global__ void not_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                     Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] != b[at.of[2]];
    }
}

extern "C" __global__ void less(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] < b[at.of[2]];
    }
}

extern "C" __global__ void less_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                      Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] <= b[at.of[2]];
    }
}

extern "C" __global__ void greater(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                   Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] > b[at.of[2]];
    }
}

extern "C" __global__ void greater_equal(bool* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b,
                                         Layout layout, long long n) {
    long long i = global_thread();
    if (i < n) {
        Offsets at = offsets_of(layout, i);
        y[at.of[0]] = a[at.of[1]] >= b[at.of[2]];
    }
}
