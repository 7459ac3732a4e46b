// python -m minigrad.cudasim bfs_step.cu --order forward --grid 1 --block 32 src_ptrs=[0,9,14,16,16,16,16,16,16,16,16,16,16,16,16] dst=[3,4,5,6,7,8,9,10,11,3,4,5,6,12,13,2] level=[0,0,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295,4294967295] previous=[0,1] current=empty:14 numPrevious=2 numCurrent=[0] currLevel=1 --expect reference.py:bfs_step
#include <cuda_runtime.h>
#include <climits>

#define LOCAL_CAPACITY 8

// Vertices that are reached from the previous frontier, by a queue in shared memory.
__global__ void bfs_step(const unsigned* src_ptrs, const unsigned* dst, unsigned* level, const unsigned* previous,
                         unsigned* current, unsigned numPrevious, unsigned* numCurrent, unsigned currLevel) {
    __shared__ unsigned local[LOCAL_CAPACITY], numLocal, start;
    if (threadIdx.x == 0) numLocal = 0;
    __syncthreads();  // empty
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < numPrevious) {
        unsigned vertex = previous[i];
        for (unsigned edge = src_ptrs[vertex]; edge < src_ptrs[vertex + 1]; edge++) {
            unsigned neighbour = dst[edge];
            if (atomicCAS(&level[neighbour], UINT_MAX, currLevel) == UINT_MAX) {
                unsigned at = atomicAdd(&numLocal, 1);
                if (at < LOCAL_CAPACITY) {
                    local[at] = neighbour;
                } else {
                    current[atomicAdd(numCurrent, 1)] = neighbour;
                }
            }
        }
    }
    __syncthreads();  // full
    if (threadIdx.x == 0) start = atomicAdd(numCurrent, min(numLocal, LOCAL_CAPACITY));
    __syncthreads();  // known
    for (unsigned j = threadIdx.x; j < min(numLocal, LOCAL_CAPACITY); j += blockDim.x) current[start + j] = local[j];
}

// Mistakes, and what is found of them:
//   RACE       __syncthreads();  // empty  ->
//   RACE       __syncthreads();  // full  ->
//   RACE       __syncthreads();  // known  ->
//   RACE       } else {\n  ->  } else {\n                    numLocal = LOCAL_CAPACITY;\n
//   RACE       atomicCAS(&level[neighbour], UINT_MAX, currLevel) == UINT_MAX  ->  level[neighbour] == UINT_MAX && (level[neighbour] = currLevel, true)
//   OOB-INDEX  if (at < LOCAL_CAPACITY)  ->  if (at <= LOCAL_CAPACITY)
