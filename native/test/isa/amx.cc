#include "../../simd/vec_avx512.h"

#include "instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::test::VecTable sdpa_vec_amx = sdpa::vecTableOf("amx");
