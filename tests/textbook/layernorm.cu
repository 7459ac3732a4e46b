// python -m minigrad.cudasim layernorm.cu --grid 2 --block 128 out=empty:7x75 mean=empty:7 rstd=empty:7 inp=normal:7x75 weight=normal:75 bias=normal:75 N=7 C=75 --expect reference.py:layernorm
#include <cuda_runtime.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

namespace cg = cooperative_groups;

// One tile of 32 threads for a row of C floats.
__global__ void layernorm(float* __restrict__ out, float* __restrict__ mean, float* __restrict__ rstd,
                          const float* __restrict__ inp, const float* __restrict__ weight,
                          const float* __restrict__ bias, int N, int C) {
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
    int idx = blockIdx.x * warp.meta_group_size() + warp.meta_group_rank();
    if (idx >= N) return;
    const float* x = inp + idx * C;
    float sum = 0.0f;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) sum += x[i];
    sum = cg::reduce(warp, sum, cg::plus<float>{});
    float m = sum / C;
    if (warp.thread_rank() == 0 && mean != nullptr) __stcs(mean + idx, m);
    sum = 0.0f;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) {
        float diff = x[i] - m;
        sum += diff * diff;
    }
    sum = cg::reduce(warp, sum, cg::plus<float>{});
    float s = rsqrtf(sum / C + 1e-5f);
    if (warp.thread_rank() == 0 && rstd != nullptr) __stcs(rstd + idx, s);
    float* o = out + idx * C;
    for (int c = warp.thread_rank(); c < C; c += warp.size()) {
        float n = s * (__ldcs(x + c) - m);
        __stcs(o + c, n * weight[c] + bias[c]);
    }
}

// Mistakes, and what is found of them:
//   UNINIT-LOCAL   float sum = 0.0f;  ->  float sum;
//   WRONG          sum = 0.0f;\n    for (int i = warp.thread_rank(); i < C; i += warp.size()) {  ->  for (int i = warp.thread_rank(); i < C; i += warp.size()) {
//   OOB-GLOBAL     if (idx >= N) return;  ->
//   WARP-DEADLOCK  if (idx >= N) return;  ->  if (warp.thread_rank() >= C - 50) return;
//   OOB-GLOBAL     c < C; c += warp.size()  ->  c <= C; c += warp.size()
//   nothing        if (warp.thread_rank() == 0 && mean  ->  if (mean  : all lanes store the same
//   OOB-GLOBAL     inp + idx * C;  ->  inp + idx * C + 1;
//   RACE           float* o = out + idx * C;  ->  float* o = out + blockIdx.x * C;
