// Adam.  w: weight, g: gradient, m and u: sums of past gradients and of their squares; the numbers a and e depend on
// the step, and come from the host:
//
//     m <- b1 m + g,   u <- b2 u + g^2,   w <- keep w - a m / (sqrt(u) + e)
//
// keep is 1 but for AdamW, whose weights decay by themselves.
//
// minigrad/optim/adam.py.  One pass over the arrays of all weights; update.cuh says what one thread does.  m and u
// smaller than `tiny_m` and `tiny_u` become 0: see tiny_state in minigrad/optim/optimizer.py.  Why fma: see sgd.cu.
#include "update.cuh"

struct Adam {
    REAL b1, b2, a, e, wd, keep, tiny_m, tiny_u;
    __device__ __forceinline__ void operator()(REAL (&value)[3], REAL g) const {
        REAL &w = value[0], &m = value[1], &u = value[2];
        if (wd != 0) g = fma(wd, w, g);  // not 0 * w, which is NaN where w is infinite
        m = fma(b1, m, g);
        u = fma(b2, u, g * g);
        w = fma(-a, m / (sqrt(u) + e), keep * w);
        if (fabs(m) < tiny_m) m = 0;
        if (u < tiny_u) u = 0;
    }
};

extern "C" __global__ void adam(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> m,
                                const __grid_constant__ Arrays<REAL> u, const __grid_constant__ Arrays<const REAL> g,
                                const __grid_constant__ Lengths lengths, REAL b1, REAL b2, REAL a, REAL e, REAL wd,
                                REAL keep, REAL tiny_m, REAL tiny_u) {
    Work work = work_of(lengths);
    REAL* const changed[3] = {w.of[work.which], m.of[work.which], u.of[work.which]};
    update(changed, g.of[work.which], work, Adam{b1, b2, a, e, wd, keep, tiny_m, tiny_u});
}
