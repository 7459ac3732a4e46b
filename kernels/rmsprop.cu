// RMSprop.  w: weight, g: gradient, u: running mean of its square, v: velocity, lr: learning rate, mu: momentum, wd:
// weight decay, which is added to g.
//
//     u <- alpha u + (1 - alpha) g^2
//     rmsprop:             w <- w - lr g / (sqrt(u) + eps)
//     rmsprop_momentum:    v <- mu v + g / (sqrt(u) + eps),   w <- w - lr v
//
// minigrad/optim/rmsprop.py.  One pass over the arrays of all weights; update.cuh says what one thread does.  rest is
// 1 - alpha, which the host has to more digits.  u and v smaller than `tiny_u` and `tiny_v` become 0: see tiny_state in
// minigrad/optim/optimizer.py.  Why fma: see sgd.cu.
#include "update.cuh"

struct RMSprop {
    REAL lr, alpha, rest, eps, wd, tiny_u;

    // g / (sqrt(u) + eps) with the new u.
    __device__ __forceinline__ REAL scaled(REAL w, REAL g, REAL& u) const {
        if (wd != 0) g = fma(wd, w, g);  // not 0 * w, which is NaN where w is infinite
        u = fma(alpha, u, rest * (g * g));
        REAL y = g / (sqrt(u) + eps);
        if (u < tiny_u) u = 0;
        return y;
    }
    __device__ __forceinline__ void operator()(REAL (&value)[2], REAL g) const {
        value[0] = fma(-lr, scaled(value[0], g, value[1]), value[0]);
    }
};

struct WithMomentum {
    RMSprop rule;
    REAL mu, tiny_v;
    __device__ __forceinline__ void operator()(REAL (&value)[3], REAL g) const {
        REAL &w = value[0], &v = value[2];
        v = fma(mu, v, rule.scaled(w, g, value[1]));
        w = fma(-rule.lr, v, w);
        if (fabs(v) < tiny_v) v = 0;
    }
};

extern "C" __global__ void rmsprop(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> u,
                                   const __grid_constant__ Arrays<const REAL> g,
                                   const __grid_constant__ Lengths lengths, REAL lr, REAL alpha, REAL rest, REAL eps,
                                   REAL wd, REAL tiny_u) {
    Work work = work_of(lengths);
    REAL* const changed[2] = {w.of[work.which], u.of[work.which]};
    update(changed, g.of[work.which], work, RMSprop{lr, alpha, rest, eps, wd, tiny_u});
}

extern "C" __global__ void rmsprop_momentum(
    const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> u,
    const __grid_constant__ Arrays<REAL> v, const __grid_constant__ Arrays<const REAL> g,
    const __grid_constant__ Lengths lengths, REAL lr, REAL alpha, REAL rest, REAL eps, REAL wd, REAL mu, REAL tiny_u,
    REAL tiny_v) {
    Work work = work_of(lengths);
    REAL* const changed[3] = {w.of[work.which], u.of[work.which], v.of[work.which]};
    update(changed, g.of[work.which], work, WithMomentum{{lr, alpha, rest, eps, wd, tiny_u}, mu, tiny_v});
}
