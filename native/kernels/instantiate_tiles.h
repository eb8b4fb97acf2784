// Builds the KernelTable of the Vec, the TileUnit and the extended table in scope. Included last by the units of isa/ that have
// them. What needs no tiles is compiled once, in the unit of the extended table.
#pragma once

#include "tile_tasks.h"

namespace sdpa {
namespace {

inline void extendedMerge(const Problem& problem, const DecodeTask& first, int64_t numChunks, int64_t partialFloats) {
  kExtended.decodeMerge(problem, first, numChunks, partialFloats);
}
inline size_t extendedStatsScratchBytes(const Problem& problem, int64_t rows) {
  return kExtended.statsScratchBytes(problem, rows);
}
inline void extendedStats(const Problem& problem, const StatsOutput& output, const PrefillTask& task, void* scratch) {
  kExtended.stats(problem, output, task, scratch);
}
inline double extendedFmaProbe(int64_t iterations, float* sink) { return kExtended.fmaProbe(iterations, sink); }
inline float extendedReadProbe(const float* data, size_t count) { return kExtended.readProbe(data, count); }

constexpr KernelTable tileKernelTableOf(const char* isa) {
  static_assert(2 * kTileRows % kTileEdge == 0, "");
  return {isa,
          2 * kTileRows,  // whole tiles of both kinds
          prefillScratchBytesByTiles,
          prefillByTiles,
          decodeScratchBytesByTiles,
          decodeByTiles,
          extendedMerge,
          extendedStatsScratchBytes,
          extendedStats,
          extendedFmaProbe,
          extendedReadProbe,
          TileUnit::probe};
}

}  // namespace
}  // namespace sdpa
