#include "../simd/vec_portable.h"

#include "../kernels/instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::KernelTable sdpa_kernels_portable = sdpa::kernelTableOf("portable");
