#include "../simd/vec_avx512.h"
#include "../simd/tile_unit_avx512bf16.h"
#include "extends_avx512.h"

#include "../kernels/decode_integers.h"
#include "../kernels/decode_pairs.h"

extern "C" SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_avx512bf16 =
    sdpa::withIntegerDecode<sdpa::decodeScratchBytesByPairs, sdpa::decodeByPairs>(
        sdpa::withPairDecode(sdpa::tileKernelTableOf("avx512bf16")));
