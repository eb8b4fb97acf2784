#include "../simd/vec_avx512.h"

#include "../kernels/instantiate.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_avx512 = sdpa::kernelTableOf("avx512");
