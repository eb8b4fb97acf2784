#include "../simd/vec_avx512.h"
#include "../simd/tile_unit_amx.h"
#include "extends_avx512.h"

#include "../kernels/decode_integers.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_amx =
    sdpa::withIntegerDecode<sdpa::decodeScratchBytesByTiles, sdpa::decodeByTiles>(sdpa::tileKernelTableOf("amx"));
