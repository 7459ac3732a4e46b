// Five kernels as textbooks have them, for benchmarks/emulator.py.

__global__ void saxpy(float a, const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}

__global__ void block_sums(const float* x, float* sums) {
    __shared__ float part[256];
    int t = threadIdx.x;
    part[t] = x[blockIdx.x * 256 + t];
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) part[t] += part[t + half];
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}

__global__ void transpose(const float* x, float* y, int n) {
    __shared__ float tile[32][33];
    int row = blockIdx.y * 32, column = blockIdx.x * 32;
    for (int j = threadIdx.y; j < 32; j += 8) tile[j][threadIdx.x] = x[(row + j) * n + column + threadIdx.x];
    __syncthreads();
    for (int j = threadIdx.y; j < 32; j += 8) y[(column + j) * n + row + threadIdx.x] = tile[threadIdx.x][j];
}

__global__ void product(const float* a, const float* b, float* c, int n) {
    __shared__ float A[16][16], B[16][16];
    int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        A[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
        B[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
        __syncthreads();
        for (int j = 0; j < 16; j++) sum += A[threadIdx.y][j] * B[j][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = sum;
}

__global__ void softmax_rows(const float* x, float* y, int n) {
    const float* row = x + blockIdx.x * n;
    float largest = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < n; i += 32) largest = fmaxf(largest, row[i]);
    for (int other = 16; other > 0; other /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, other));
    for (int i = threadIdx.x; i < n; i += 32) sum += expf(row[i] - largest);
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    for (int i = threadIdx.x; i < n; i += 32) y[blockIdx.x * n + i] = expf(row[i] - largest) / sum;
}
