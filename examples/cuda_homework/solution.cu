// sums[r] is the sum of row r of x.  One block for each row; the number of its threads is a power of two, up to 256.
__global__ void row_sums(const float* x, float* sums, int columns) {
    __shared__ float part[256];
    int t = threadIdx.x;
    const float* row = x + blockIdx.x * columns;

    float sum = 0;
    for (int c = t; c < columns; c += blockDim.x) sum += row[c];
    part[t] = sum;
    __syncthreads();

    // Half of the threads add what the other half has, then a quarter, and so on.
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}
