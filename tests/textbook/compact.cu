// python -m minigrad.cudasim compact.cu --order forward --grid 2 --block 64 in=integers:100:-9:9 out=zeros:100 nres=zeros:1 n=100 --expect reference.py:compact
#include <cuda_runtime.h>

// The positive elements, in any order: one atomic for each warp.
__device__ unsigned int reserve(unsigned int* counter, bool wants) {
    unsigned int active = __ballot_sync(0xffffffff, wants);
    int lane = threadIdx.x & 31, leader = __ffs(active) - 1;
    unsigned int first = 0;
    if (lane == leader) first = atomicAdd(counter, __popc(active));
    first = __shfl_sync(0xffffffff, first, leader < 0 ? 0 : leader);
    return first + __popc(active & ((1u << lane) - 1));
}

__global__ void compact(const int* in, int* out, unsigned int* nres, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool wants = i < n && in[i] > 0;
    unsigned int at = reserve(nres, wants);
    if (wants) out[at] = in[i];
}

// Mistakes, and what is found of them:
//   RACE           if (lane == leader) first = atomicAdd(counter, __popc(active));  ->  if (lane == leader) { first = *counter; *counter += __popc(active); }
//   OOB-GLOBAL     bool wants = i < n && in[i] > 0;  ->  bool wants = in[i] > 0;
//   WARP-DEADLOCK  unsigned int at = reserve(nres, wants);\n    if (wants) out[at] = in[i];  ->  if (wants) out[reserve(nres, wants)] = in[i];
//   SHIFT          ((1u << lane) - 1)  ->  ((1u << lane + 1) - 1)
//   MAYBE-UNSET    unsigned int first = 0;  ->  unsigned int first;  : it comes from the leader
//   RACE           if (wants) out[at]  ->  if (i < n) out[at]
