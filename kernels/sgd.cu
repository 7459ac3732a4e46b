// Stochastic gradient descent.  w: weight, g: gradient, v: velocity, lr: learning rate, mu: momentum, wd: weight decay.
//
//     sgd                         sgd_pytorch               sgd_alexnet
//     w <- w - lr (g + wd w)      v <- mu v + g + wd w      v <- mu v - lr g - lr wd w
//                                 w <- w - lr v             w <- w + v
//
//     sgd_nesterov, after sgd_pytorch's v:    w <- w - lr (g + wd w + mu v)
//
// minigrad/optim/sgd.py.  One pass over the arrays of all weights; update.cuh says what one thread does.  Velocities
// smaller than `tiny` become 0: see tiny_state in minigrad/optim/optimizer.py.  Sums of products are written as fma(a,
// b, c), a b + c rounded once: a compiler that may choose where to do so can choose differently for 16 bytes at a time
// and for one element, and the same weight would get other bits at another address.
#include "update.cuh"

struct Plain {
    REAL lr, wd;
    __device__ __forceinline__ void operator()(REAL (&value)[1], REAL g) const {
        REAL& w = value[0];
        if (wd != 0) g = fma(wd, w, g);  // not 0 * w, which is NaN where w is infinite
        w = fma(-lr, g, w);
    }
};

struct PyTorch {
    REAL lr, mu, wd, tiny;
    __device__ __forceinline__ void operator()(REAL (&value)[2], REAL g) const {
        REAL &w = value[0], &v = value[1];
        v = fma(mu, v, g);
        if (wd != 0) v = fma(wd, w, v);
        w = fma(-lr, v, w);
        if (fabs(v) < tiny) v = 0;
    }
};

struct Nesterov {
    REAL lr, mu, wd, tiny;
    __device__ __forceinline__ void operator()(REAL (&value)[2], REAL g) const {
        REAL &w = value[0], &v = value[1];
        if (wd != 0) g = fma(wd, w, g);
        v = fma(mu, v, g);
        w = fma(-lr, fma(mu, v, g), w);
        if (fabs(v) < tiny) v = 0;
    }
};

struct AlexNet {
    REAL lr, mu, lr_wd, tiny;
    __device__ __forceinline__ void operator()(REAL (&value)[2], REAL g) const {
        REAL &w = value[0], &v = value[1];
        v = fma(-lr, g, mu * v);
        if (lr_wd != 0) v = fma(-lr_wd, w, v);
        w += v;
        if (fabs(v) < tiny) v = 0;
    }
};

extern "C" __global__ void sgd(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<const REAL> g,
                               const __grid_constant__ Lengths lengths, REAL lr, REAL wd) {
    Work work = work_of(lengths);
    REAL* const changed[1] = {w.of[work.which]};
    update(changed, g.of[work.which], work, Plain{lr, wd});
}

extern "C" __global__ void sgd_pytorch(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> v,
                                       const __grid_constant__ Arrays<const REAL> g,
                                       const __grid_constant__ Lengths lengths, REAL lr, REAL mu, REAL wd, REAL tiny) {
    Work work = work_of(lengths);
    REAL* const changed[2] = {w.of[work.which], v.of[work.which]};
    update(changed, g.of[work.which], work, PyTorch{lr, mu, wd, tiny});
}

extern "C" __global__ void sgd_nesterov(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> v,
                                        const __grid_constant__ Arrays<const REAL> g,
                                        const __grid_constant__ Lengths lengths, REAL lr, REAL mu, REAL wd, REAL tiny) {
    Work work = work_of(lengths);
    REAL* const changed[2] = {w.of[work.which], v.of[work.which]};
    update(changed, g.of[work.which], work, Nesterov{lr, mu, wd, tiny});
}

extern "C" __global__ void sgd_alexnet(const __grid_constant__ Arrays<REAL> w, const __grid_constant__ Arrays<REAL> v,
                                       const __grid_constant__ Arrays<const REAL> g,
                                       const __grid_constant__ Lengths lengths, REAL lr, REAL mu, REAL lr_wd,
                                       REAL tiny) {
    Work work = work_of(lengths);
    REAL* const changed[2] = {w.of[work.which], v.of[work.which]};
    update(changed, g.of[work.which], work, AlexNet{lr, mu, lr_wd, tiny});
}
