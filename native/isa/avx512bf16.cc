#include "../simd/vec_avx512.h"
#include "../simd/tile_unit_avx512bf16.h"

#include "../kernels/instantiate_tiles.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_avx512bf16 = sdpa::tileKernelTableOf("avx512bf16");
