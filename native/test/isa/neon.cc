#include "../../simd/vec_neon.h"

#include "instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::test::VecTable sdpa_vec_neon = sdpa::vecTableOf("neon");
