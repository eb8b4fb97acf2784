#include "../../simd/vec_portable.h"

#include "instantiate.h"

extern "C" __attribute__((visibility("hidden"))) const sdpa::test::VecTable sdpa_vec_portable = sdpa::vecTableOf("portable");
