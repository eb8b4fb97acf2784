// For the units that extend avx512: what they have no better way for, they leave to its table, which every processor that
// runs them can run too. Included before kernels/instantiate_tiles.h.
#pragma once

#include "../compiler.h"
#include "../kernel_table.h"

extern "C" {
extern SDPA_HIDDEN const sdpa::KernelTable sdpa_kernels_avx512;
}

namespace sdpa {
namespace {

constexpr const KernelTable& kExtended = sdpa_kernels_avx512;

}  // namespace
}  // namespace sdpa
