// Builds the KernelTable of the Vec and the TileUnit in scope. Included last by the units of isa/ that have one.
#pragma once

#include "instantiate.h"
#include "tile_tasks.h"

namespace sdpa {
namespace {

constexpr KernelTable tileKernelTableOf(const char* isa) {
  KernelTable table = kernelTableOf(isa);
  table.tileRows = 2 * kTileRows;  // whole tiles of both kinds
  static_assert(2 * kTileRows % kTileEdge == 0, "");
  table.prefillScratchBytes = prefillScratchBytesByTiles;
  table.prefill = prefillByTiles;
  table.decodeScratchBytes = decodeScratchBytesByTiles;
  table.decode = decodeByTiles;
  table.tileProbe = TileUnit::probe;
  return table;
}

}  // namespace
}  // namespace sdpa
