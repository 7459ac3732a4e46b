// python -m minigrad.cudasim monte_carlo.cu --grid 2 --block 64 hits=[0] samples=20 --expect reference.py:monte_carlo
#include <cuda_runtime.h>

template <typename T> struct Rng {
    T state;
    __device__ explicit Rng(T seed) : state(seed * 747796405u + 2891336453u) {}
    __device__ float next() {
        state = state * 747796405u + 2891336453u;
        T word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
        return ((word >> 22u) ^ word) * 2.3283064e-10f;
    }
};

__global__ void monte_carlo(unsigned long long* __restrict__ hits, int samples) {
    Rng<unsigned> rng(blockIdx.x * blockDim.x + threadIdx.x);
    unsigned inside = 0;
    for (int s = 0; s < samples; ++s) {
        float x = rng.next(), y = rng.next();
        inside += x * x + y * y <= 1.0f;
    }
    inside = __reduce_add_sync(__activemask(), inside);
    if ((threadIdx.x & 0x1f) == 0) atomicAdd(hits, (unsigned long long)inside);
}

// Mistakes, and what is found of them:
//   UNINIT-LOCAL  unsigned inside = 0;  ->  unsigned inside;
//   RACE          if ((threadIdx.x & 0x1f) == 0) atomicAdd(hits, (unsigned long long)inside);  ->  if ((threadIdx.x & 0x1f) == 0) *hits += inside;
//   WRONG         (threadIdx.x & 0x1f) == 0  ->  (threadIdx.x & 0xf) == 0
