#include "../simd/vec_portable.h"

#include "../kernels/instantiate.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_portable = sdpa::kernelTableOf("portable");
