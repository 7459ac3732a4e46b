// python -m minigrad.cudasim life.cu --grid 2 --block 32 cells=integers:9x11:0:2 next=empty:9x11 size=[11,9] --expect reference.py:life
#include <cuda_runtime.h>

namespace game {
__device__ __host__ inline int wrap(int i, int n) { return (i + n) % n; }
__device__ int neighbours(const bool* cells, int x, int y, int2 size);

__global__ void life(const bool* cells, bool* next, int2 size) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size.x * size.y; i += gridDim.x * blockDim.x) {
        int alive = neighbours(cells, i % size.x, i / size.x, size);
        next[i] = alive == 3 || (alive == 2 && cells[i]);
    }
}

__device__ int neighbours(const bool* cells, int x, int y, int2 size) {
    int count = 0;
    for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx)
            if (dx || dy) count += cells[wrap(y + dy, size.y) * size.x + wrap(x + dx, size.x)];
    return count;
}
}  // namespace game

// Mistakes, and what is found of them:
//   UNINIT-LOCAL  int count = 0;  ->  int count;
//   OOB-GLOBAL    return (i + n) % n;  ->  return i % n;
//   WRITE-CONST   next[i] = alive == 3  ->  const_cast<bool*>(cells)[i] = alive == 3
//   nothing       i += gridDim.x * blockDim.x  ->  i += gridDim.x + blockDim.x  : the same cells several times, with the same result
//   WRONG         i < size.x * size.y;  ->  i < size.x * size.y - 1;
//   WRONG         if (dx || dy)  ->  if (dx && dy)
