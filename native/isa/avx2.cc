#include "../simd/vec_avx2.h"

#include "../kernels/instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::KernelTable sdpa_kernels_avx2 = sdpa::kernelTableOf("avx2");
