// What a card can do at most, for the rooflines of minigrad/hardware_check: how many bytes a second it moves, and how
// many additions and multiplications a second it makes.

// y = x, a pack of 16 bytes for each thread; neighbouring threads move neighbouring packs.  n: the number of packs.
extern "C" __global__ void copy_packs(REAL* __restrict__ y, const REAL* __restrict__ x, long long n) {
    long long i = global_thread();
    if (i < n) ((Reals*)y)[i] = ((const Reals*)x)[i];
}

// `rounds` times CHAINS multiplications and additions in registers.  One waits for the one before it in its chain;
// there are so many chains that the arithmetic units never do.  What comes out is written so that none of it may be
// left out:
//
//     y = sum over chains of v_rounds,   v_(t+1) = a v_t + b,   v_0 = chain
#define CHAINS 8

extern "C" __global__ __launch_bounds__(256) void multiply_add(REAL* __restrict__ y, REAL a, REAL b, int rounds) {
    REAL values[CHAINS];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) values[chain] = chain;
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; chain++) values[chain] = fma(a, values[chain], b);
    }
    REAL sum = 0;
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) sum += values[chain];
    y[global_thread()] = sum;
}
