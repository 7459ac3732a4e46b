// python -m minigrad.cudasim merge_path.cu --grid 2 --block 16 A=arange:100 m=100 B=arange:37 n=37 C=empty:137 --expect reference.py:merge_path
#include <cuda_runtime.h>

#define cdiv(a, b) (((a) + (b) - 1) / (b))

__device__ int co_rank(int k, const int* A, int m, const int* B, int n) {
    int i = k < m ? k : m, j = k - i;
    int i_low = 0 > (k - n) ? 0 : k - n, j_low = 0 > (k - m) ? 0 : k - m;
    while (true) {
        if (i > 0 && j < n && A[i - 1] > B[j]) {
            int delta = (i - i_low + 1) >> 1;
            j_low = j;
            j += delta;
            i -= delta;
        } else if (j > 0 && i < m && B[j - 1] >= A[i]) {
            int delta = (j - j_low + 1) >> 1;
            i_low = i;
            i += delta;
            j -= delta;
        } else {
            return i;
        }
    }
}

__device__ void merge_sequential(const int* A, int m, const int* B, int n, int* C) {
    int i = 0, j = 0, k = 0;
    while (i < m && j < n) C[k++] = A[i] <= B[j] ? A[i++] : B[j++];
    while (i < m) C[k++] = A[i++];
    while (j < n) C[k++] = B[j++];
}

__global__ void merge_path(const int* A, int m, const int* B, int n, int* C) {
    int tid = blockIdx.x * blockDim.x + threadIdx.x;
    int elements = cdiv(m + n, blockDim.x * gridDim.x);
    int k_curr = min(tid * elements, m + n), k_next = min((tid + 1) * elements, m + n);
    int i_curr = co_rank(k_curr, A, m, B, n), i_next = co_rank(k_next, A, m, B, n);
    int j_curr = k_curr - i_curr, j_next = k_next - i_next;
    merge_sequential(&A[i_curr], i_next - i_curr, &B[j_curr], j_next - j_curr, &C[k_curr]);
}

// Mistakes, and what is found of them:
//   OOB-GLOBAL  if (i > 0 && j < n && A[i - 1] > B[j])  ->  if (j < n && A[i - 1] > B[j])
//   OOB-GLOBAL  && i < m && B[j - 1] >= A[i]  ->  && B[j - 1] >= A[i]
//   OOB-GLOBAL  while (i < m && j < n) C  ->  while (i < m || j < n) C
//   OOB-GLOBAL  j += delta;\n            i -= delta;  ->  j += delta;
//   OOB-GLOBAL  k_next = min((tid + 1) * elements, m + n)  ->  k_next = (tid + 1) * elements
//   WRONG       while (j < n) C[k++] = B[j++];  ->
