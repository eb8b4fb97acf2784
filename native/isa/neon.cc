#include "../simd/vec_neon.h"

#include "../kernels/instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::KernelTable sdpa_kernels_neon = sdpa::kernelTableOf("neon");
