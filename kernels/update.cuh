// How the optimisers (sgd.cu, adam.cu) change all weights of a net in one launch.  A launch for each would cost the
// host more time than most of them, biases above all, cost the card.

// A parameter `const __grid_constant__ Arrays<REAL> w` takes up to MANY arrays; Python's launch is given a list.
#define MANY 32
template <class T>
struct Arrays {
    T* of[MANY];
};

// The elements of each array, and the block after its last: the arrays have the blocks of the grid one after the other.
struct Lengths {
    long long n[MANY];
    int end[MANY];
};

// What a block is to do: its threads are numbers i and following of the `threads` that share array `which`, n elements.
struct Work {
    int which;
    long long n, i, threads;
};

// The largest arrays come first (minigrad/gpu/card.py sorts them), so that nearly all blocks find theirs at once.
__device__ __forceinline__ Work work_of(const Lengths& lengths) {
    int which = 0, first = 0;
    while ((int)blockIdx.x >= lengths.end[which]) first = lengths.end[which++];
    return {which, lengths.n[which], (long long)(blockIdx.x - first) * blockDim.x + threadIdx.x,
            (long long)(lengths.end[which] - first) * blockDim.x};
}

// rule(value, g[i]) for every i, where value[k] is changed[k][i]: a weight and its state, and its gradient.  All are
// read and written once.  By 16 bytes if all arrays begin at a multiple of 16 bytes; what then remains at the end, or
// else everything, one by one.
template <int COUNT, class Rule>
__device__ __forceinline__ void update(REAL* const (&changed)[COUNT], const REAL* g, const Work& work,
                                       const Rule& rule) {
    constexpr int LANES = lanes_of<REAL>();
    unsigned long long address = (unsigned long long)g;
#pragma unroll
    for (int k = 0; k < COUNT; k++) address |= (unsigned long long)changed[k];
    long long packs = address % 16 == 0 ? work.n / LANES : 0, i = work.i;
    if (i < packs) {
        Reals pack[COUNT], gradient = ((const Reals*)g)[i];
#pragma unroll
        for (int k = 0; k < COUNT; k++) pack[k] = ((const Reals*)changed[k])[i];
#pragma unroll
        for (int lane = 0; lane < LANES; lane++) {
            REAL value[COUNT];
            for (int k = 0; k < COUNT; k++) value[k] = pack[k].lane[lane];
            rule(value, gradient.lane[lane]);
            for (int k = 0; k < COUNT; k++) pack[k].lane[lane] = value[k];
        }
#pragma unroll
        for (int k = 0; k < COUNT; k++) ((Reals*)changed[k])[i] = pack[k];
    }
    for (i += packs * LANES; i < work.n; i += work.threads) {
        REAL value[COUNT];
        for (int k = 0; k < COUNT; k++) value[k] = changed[k][i];
        rule(value, g[i]);
        for (int k = 0; k < COUNT; k++) changed[k][i] = value[k];
    }
}
