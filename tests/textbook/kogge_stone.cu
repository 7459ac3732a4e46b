// python -m minigrad.cudasim kogge_stone.cu --grid 2 --block 128 X=integers:200:-1000:-1 Y=empty:200 N=200 --expect reference.py:kogge_stone
#include <cuda_runtime.h>
#include <climits>

constexpr int SECTION = 128;

template <class Op>
struct Scanner {
    Op op;
    template <typename T>
    __device__ __forceinline__ T inclusive(T value, T* buffer, int lane, int width) const {
        buffer[lane] = value;
        for (int stride = 1; stride < width; stride *= 2) {
            __syncthreads();  // read
            T other = lane >= stride ? buffer[lane - stride] : value;
            __syncthreads();  // write
            if (lane >= stride) value = op(value, other);
            buffer[lane] = value;
        }
        __syncthreads();
        return buffer[lane];
    }
};

struct Max {
    __device__ int operator()(int a, int b) const { return a > b ? a : b; }
};

__global__ void __launch_bounds__(SECTION) kogge_stone(const int* X, int* Y, unsigned int N) {
    __shared__ int XY[SECTION];
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    int value = INT_MIN;
    if (i < N) value = X[i];
    value = Scanner<Max>{}.inclusive(value, XY, threadIdx.x, SECTION);
    if (i < N) Y[i] = value;
}

// Mistakes, and what is found of them:
//   RACE               __syncthreads();  // read  ->
//   RACE               __syncthreads();  // write  ->
//   OOB-SHARED         buffer[lane - stride] : value  ->  buffer[lane - stride - 1] : value
//   OOB-GLOBAL         if (i < N) Y[i] = value;  ->  Y[i] = value;
//   DIVERGENT-BARRIER  if (i < N) value = X[i];\n  ->  if (i >= N) return;\n    value = X[i];\n
//   LAUNCH             constexpr int SECTION = 128;  ->  constexpr int SECTION = 64;
