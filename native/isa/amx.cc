#include "../simd/vec_avx512.h"
#include "../simd/tile_unit_amx.h"

#include "../kernels/instantiate_tiles.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_amx = sdpa::tileKernelTableOf("amx");
