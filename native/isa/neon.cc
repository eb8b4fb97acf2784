#include "../simd/vec_neon.h"

#include "../kernels/instantiate.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_neon = sdpa::kernelTableOf("neon");
