// Tile constants and the layouts that all kernels share.
//
//   qT      [headDim][lanes]          a query tile, transposed: a query row is a lane
//   kPanels [keys / 16][headDim][16]  keys of a block, 16 interleaved
//   vPanels [valueDim / 16][keys][16] values of a block, 16 channels side by side
//   scores  [keys][lanes]             a score tile, transposed
//   oT      [valueDim][lanes]         the output accumulator of a tile, transposed
//
// With a query row in each lane, both products are the same kernel (C[16-panel rows][lanes] = panel x [depth][lanes]),
// maxima and sums over keys are lane-wise, and everything that belongs to a query row (maximum, sum, interval,
// slope) is a vector beside the tile.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../compiler.h"
#include "../intervals.h"

namespace sdpa {
namespace {

constexpr int kPanel = 16;  // rows of a packed panel of K or V, on every ISA

// Register tile: kGemmRows panel rows x kTileVecs vectors of lanes.
constexpr int kGemmRows = Vec::kRegisters >= 32 ? 8 : 4;
constexpr int kTileVecs = 3;
constexpr int kTileRows = kTileVecs * Vec::kWidth;  // B_r: query rows of a prefill tile

constexpr int kKeyBlock = 256;     // B_c: keys packed and processed together
constexpr int kDepthChain = 64;    // channels of q and k that one chain of additions sums
constexpr int kKeyChain = 128;     // keys that one chain of additions sums
constexpr int kDecodeBlock = 64;   // keys of a decode block

// Asks for a row's cache lines: into L2 for reading, into L1 for writing. Never faults.
inline void prefetchForRead(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) SDPA_PREFETCH_READ(static_cast<const char*>(row) + i);
}
inline void prefetchForWrite(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) SDPA_PREFETCH_WRITE(static_cast<const char*>(row) + i);
}

// Hands out 64-byte aligned pieces of a task's scratch. With a null base it only counts.
struct Arena {
  char* base;
  size_t used;

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + used);  // of null too
    used += static_cast<size_t>(roundUp(count * static_cast<int64_t>(sizeof(T)), 64));
    return piece;
  }
};

}  // namespace
}  // namespace sdpa
