// The ladder of matrix products, step 1: the formula and nothing else.
//
//     c[m,n] = sum over k of  a[m,k] * b[k,n]
//
// a (M, K), b (K, N) and c (M, N) lie row by row, without gaps.  One thread computes one number of c.
//
// Threads side by side are columns n side by side: at each k, the 32 threads of a warp read 32 numbers of b that are
// neighbours in memory, and all the same number of a.  Were they rows m side by side, they would read 32 numbers of a,
// each in a sector of its own, and write 32 numbers of c that are as far apart.
//
// What it costs: two reads for every multiplication.  Each number of a is read for N numbers of c, each of b for M of
// them: the kernel waits for memory.  Step 2 lets threads share what they have read.

extern "C" __global__ void gemm_naive(const REAL* __restrict__ a, const REAL* __restrict__ b, REAL* __restrict__ c,
                                      int M, int N, int K) {
    long long number = global_thread();
    if (number >= (long long)M * N) return;
    long long m = number / N, n = number % N;

    REAL sum = 0;
    for (int k = 0; k < K; k++) sum += a[m * K + k] * b[(long long)k * N + n];
    c[number] = sum;
}
