#include "../simd/vec_avx2.h"

#include "../kernels/instantiate.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_avx2 = sdpa::kernelTableOf("avx2");
