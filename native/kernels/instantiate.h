// Builds the KernelTable of the Vec in scope. Included last by each unit of isa/.
#pragma once

#include "../kernel_table.h"
#include "decode_rows.h"
#include "merge.h"
#include "probes.h"
#include "stats.h"

namespace sdpa {
namespace {

constexpr KernelTable kernelTableOf(const char* isa) {
  return {isa,         kTileRows,         prefillScratchBytes, prefill,  decodeRowsScratchBytes, decodeRows,
          decodeMerge, statsScratchBytes, stats,               fmaProbe, readProbe,              nullptr};
}

}  // namespace
}  // namespace sdpa
