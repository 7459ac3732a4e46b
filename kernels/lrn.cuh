// What lrn.cu and lrn_within_map.cu share: the powers of s in the formulas of minigrad/ops/lrn.py.

struct Powers {
    REAL minus_beta, inverse;  // s^-beta, and 1 / s
};

// work(powers), where powers(s) are the Powers of any s.  Most nets have beta = 3/4, which takes two roots, s^-1/2 and
// that of it; and a root is one instruction, where pow is a hundred.  What work does is compiled for either.
template <class Work>
__device__ __forceinline__ void with_powers(REAL beta, Work work) {
    if (beta == REAL(0.75))
        work([](REAL s) {
            REAL root = rsqrt(s), half = root * rsqrt(root);  // s^-1/2, s^-1/4
            return Powers{s == INFINITY ? REAL(0) : root * half, root * root};  // of infinity half is 0 * inf
        });
    else
        work([=](REAL s) { return Powers{pow(s, -beta), 1 / s}; });
}
