// python -m minigrad.cudasim attention.cu --template 16,32,16 --grid 2 --block 32 --shared 4096 Q=normal:50x16 K=normal:50x16 V=normal:50x16 O=empty:50x16 N=50 scale=0.25 --expect reference.py:attention
#include <cuda_runtime.h>

// Flash attention of one head, causal: a block has Br queries, a thread for each; keys and values come by tiles of Bc.
template <int D, int Br, int Bc>
__global__ void attention(const float* Q, const float* K, const float* V, float* O, const int N, const float scale) {
    extern __shared__ float sram[];
    float* Kj = sram;
    float* Vj = &sram[Bc * D];
    float* S = &sram[2 * Bc * D];  // Br x Bc
    const int tx = threadIdx.x, q = blockIdx.x * Br + tx;
    float qi[D], acc[D], m = -INFINITY, l = 0.f;
    for (int d = 0; d < D; d++) {
        qi[d] = q < N ? Q[q * D + d] : 0.f;
        acc[d] = 0.f;
    }
    for (int j = 0; j < (N + Bc - 1) / Bc; j++) {
        for (int e = tx; e < Bc * D; e += Br) {
            bool in = j * Bc + e / D < N;
            Kj[e] = in ? K[j * Bc * D + e] : 0.f;
            Vj[e] = in ? V[j * Bc * D + e] : 0.f;
        }
        __syncthreads();  // loaded
        float row_m = -INFINITY, row_l = 0.f;
        for (int k = 0; k < Bc; k++) {
            float sum = 0.f;
            for (int d = 0; d < D; d++) sum += qi[d] * Kj[k * D + d];
            sum = j * Bc + k <= q && j * Bc + k < N ? sum * scale : -INFINITY;
            S[tx * Bc + k] = sum;
            row_m = fmaxf(row_m, sum);
        }
        if (row_m > -INFINITY) {
            const float m_new = fmaxf(m, row_m), factor = expf(m - m_new);
            for (int d = 0; d < D; d++) acc[d] *= factor;
            for (int k = 0; k < Bc; k++) {
                float p = expf(S[tx * Bc + k] - m_new);
                row_l += p;
                for (int d = 0; d < D; d++) acc[d] += p * Vj[k * D + d];
            }
            l = l * factor + row_l;
            m = m_new;
        }
        __syncthreads();  // used
    }
    if (q >= N) return;
    for (int d = 0; d < D; d++) O[q * D + d] = acc[d] / l;
}

// Mistakes, and what is found of them:
//   RACE               __syncthreads();  // loaded  ->
//   RACE               __syncthreads();  // used  ->
//   nothing            acc[d] = 0.f;\n  ->  : it is multiplied by 0; a NaN would do harm
//   MAYBE-UNSET        l = 0.f;\n    for  ->  l;\n    for  : likewise
//   OOB-SHARED         float* S = &sram[2 * Bc * D];  ->  float* S = &sram[3 * Bc * D];
//   RACE               float* S = &sram[2 * Bc * D];  ->  float* S = &sram[Bc * D + Bc];
//   OOB-GLOBAL         bool in = j * Bc + e / D < N;  ->  bool in = true;
//   OOB-GLOBAL         if (q >= N) return;\n  ->
//   DIVERGENT-BARRIER  const int tx = threadIdx.x, q = blockIdx.x * Br + tx;  ->  const int tx = threadIdx.x, q = blockIdx.x * Br + tx;\n    if (q >= N) return;
//   WRONG              j * Bc + k <= q &&  ->
