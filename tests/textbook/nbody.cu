// python -m minigrad.cudasim nbody.cu --grid 3 --block 32 --shared 512 devX=uniform:96 globalA=empty:96 N=96 --expect reference.py:nbody
#include <cuda_runtime.h>

#define EPS2 0.01f
#define P 32

__device__ float3 bodyBodyInteraction(float4 bi, float4 bj, float3 ai) {
    float3 r;
    r.x = bj.x - bi.x;
    r.y = bj.y - bi.y;
    r.z = bj.z - bi.z;
    float distSqr = r.x * r.x + r.y * r.y + r.z * r.z + EPS2;
    float distSixth = distSqr * distSqr * distSqr;
    float s = bj.w * (1.0f / sqrtf(distSixth));
    ai.x += r.x * s;
    ai.y += r.y * s;
    ai.z += r.z * s;
    return ai;
}

__device__ float3 tile_calculation(float4 myPosition, float3 accel) {
    extern __shared__ float4 shPosition[];
    for (int i = 0; i < blockDim.x; i++) accel = bodyBodyInteraction(myPosition, shPosition[i], accel);
    return accel;
}

__global__ void nbody(const float4* devX, float4* globalA, int N) {
    extern __shared__ float4 shPosition[];
    float4* globalX = const_cast<float4*>(devX);
    float3 acc = {0.0f, 0.0f, 0.0f};
    int gtid = blockIdx.x * blockDim.x + threadIdx.x;
    float4 myPosition = globalX[gtid];
    for (int i = 0, tile = 0; i < N; i += P, tile++) {
        shPosition[threadIdx.x] = globalX[tile * blockDim.x + threadIdx.x];
        __syncthreads();  // loaded
        acc = tile_calculation(myPosition, acc);
        __syncthreads();  // used
    }
    globalA[gtid] = make_float4(acc.x, acc.y, acc.z, 0.0f);
}

// Mistakes, and what is found of them:
//   RACE          __syncthreads();  // loaded  ->
//   RACE          __syncthreads();  // used  ->
//   UNINIT-LOCAL  float3 acc = {0.0f, 0.0f, 0.0f};  ->  float3 acc;
//   OOB-GLOBAL    tile * blockDim.x + threadIdx.x];  ->  tile * P + gtid];
//   OOB-SHARED    i < blockDim.x; i++  ->  i <= blockDim.x; i++
//   OOB-GLOBAL    i < N; i += P  ->  i <= N; i += P
//   WRONG         make_float4(acc.x, acc.y, acc.z, 0.0f)  ->  make_float4(acc.x, acc.y, acc.y, 0.0f)
