// python -m minigrad.cudasim dot_product.cu --grid 3 --block 64 --shared 32 a=normal:211 b=normal:211 result=zeros:1 n=211 --expect reference.py:dot_product
#include <cuda_runtime.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

namespace cg = cooperative_groups;

__global__ void dot_product(const double2* __restrict__ a, const double2* __restrict__ b, double* result, int n) {
    auto cta = cg::this_thread_block();
    auto grid = cg::this_grid();
    extern __shared__ double tmp[];
    double sum = 0.0;
    for (int i = grid.thread_rank(); i < n; i += grid.size()) {
        double2 u = a[i], v = b[i];
        sum += u.x * v.x + u.y * v.y;
    }
    cg::thread_block_tile<16> tile = cg::tiled_partition<16>(cta);
    sum = cg::reduce(tile, sum, cg::plus<double>());
    if (tile.thread_rank() == 0) tmp[tile.meta_group_rank()] = sum;
    cg::sync(cta);
    if (cta.thread_rank() == 0) {
        double total = 0.0;
        for (unsigned i = 0; i < tile.meta_group_size(); i++) total += tmp[i];
        atomicAdd(result, total);
    }
}

// Mistakes, and what is found of them:
//   RACE           cg::sync(cta);\n  ->
//   nothing        if (tile.thread_rank() == 0) tmp  ->  tmp  : all lanes store the same
//   RACE           atomicAdd(result, total);  ->  *result += total;
//   UNINIT-LOCAL   double sum = 0.0;  ->  double sum;
//   OOB-SHARED     tmp[tile.meta_group_rank()] = sum;  ->  tmp[tile.meta_group_rank() + 1] = sum;
//   OOB-GLOBAL     i < n; i += grid.size()  ->  i < n * 2; i += grid.size()
//   WARP-DEADLOCK  sum = cg::reduce(tile, sum, cg::plus<double>());\n    if (tile.thread_rank() == 0)  ->  if (tile.thread_rank() == 0) sum = cg::reduce(tile, sum, cg::plus<double>());\n    if (tile.thread_rank() == 0)
