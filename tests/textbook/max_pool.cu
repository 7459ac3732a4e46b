// python -m minigrad.cudasim max_pool.cu --grid 2 --block 16 x=uniform:9x8:-3:-1 y=empty:5x4 argmax=empty:5x4 H=9 W=8 OH=5 OW=4 k=2 stride=2 --expect reference.py:max_pool
#include <cuda_runtime.h>
#include <cfloat>

__global__ void max_pool(const float* x, float* y, int* argmax, int H, int W, int OH, int OW, int k, int stride) {
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx >= OH * OW) return;
    int oh = idx / OW, ow = idx % OW;
    float best = -FLT_MAX;
    int where = -1;
    for (int i = 0; i < k; ++i) {
        for (int j = 0; j < k; ++j) {
            int r = oh * stride + i, c = ow * stride + j;
            if (r < H && c < W) {
                float v = x[r * W + c];
                if (v > best) { best = v; where = r * W + c; }
            }
        }
    }
    y[idx] = best;
    argmax[idx] = where;
}

// Mistakes, and what is found of them:
//   WRONG         float best = -FLT_MAX;  ->  float best = FLT_MIN;
//   UNINIT-LOCAL  float best = -FLT_MAX;  ->  float best;
//   MAYBE-UNSET   int where = -1;  ->  int where;  : it is always set
//   OOB-GLOBAL    r < H && c < W  ->  r <= H && c < W
//   OOB-GLOBAL    if (idx >= OH * OW) return;  ->  if (idx > OH * OW) return;
//   OOB-GLOBAL    argmax[idx] = where;  ->  argmax[oh * OH + ow] = where;
