#include "../../simd/vec_avx2.h"

#include "instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::test::VecTable sdpa_vec_avx2 = sdpa::vecTableOf("avx2");
