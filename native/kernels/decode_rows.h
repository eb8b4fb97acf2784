// Decode of any number of rows. Few of them read the keys in place (decode.h); for more, arithmetic counts and not memory:
// they go as prefill goes, over packed keys, and leave a partial behind. Many sequences that share a prefix are many rows.
#pragma once

#include "decode.h"
#include "prefill.h"

namespace sdpa {
namespace {

// The query tiles of a decode task. Few of them meet a block of keys, so that packing it counts: while they do, the next
// block is asked for.
struct DecodeTiles {
  const DecodeTask& task;
  const PrefillRows& rows;
  Float32Queries& queries;

  void packBlock(int64_t origin, int64_t begin, int64_t end) const { queries.packBlock(origin, begin, end); }

  void attend(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    Ahead ahead;
    const DType dtype = rows.problem.kvDType;
    if (dtype == kFloat32) askForKeys<float>(tile, origin + kKeyBlock, ahead);
    if (dtype == kFloat16) askForKeys<Float16>(tile, origin + kKeyBlock, ahead);
    if (dtype == kBFloat16) askForKeys<BFloat16>(tile, origin + kKeyBlock, ahead);
    queries.kernel.attend(tile, queries.of(tile), origin, begin, end, &ahead);
  }

  // This tile's part of the block at `origin`.
  template <class T>
  void askForKeys(const QueryTile& tile, int64_t origin, Ahead& ahead) const {
    const int64_t keys = minimum(kKeyBlock, task.keyEnd - origin);
    if (keys <= 0) return;
    const int64_t numTiles = (rows.task.rowEnd + rows.tileRows - 1) / rows.tileRows, part = tile.lane / rows.tileRows;
    forEachSpan<T>(rows.problem, rows.sequence, task.kvHead, origin, keys * part / numTiles, keys * (part + 1) / numTiles,
                   [&](const KeySpan<T>& span, int64_t from, int64_t to) {
                     const int64_t bytes = (to - from) * static_cast<int64_t>(sizeof(T));
                     ahead.add(span.k, bytes * span.kRowStride);
                     ahead.add(span.v, bytes * span.vRowStride);
                   });
  }
};

inline void decodePacked(const Problem& problem, const DecodeTask& task, void* scratchMemory) {
  const int64_t rows = problem.sequences[task.sequence].qLen * problem.groupSize;
  const PrefillTask rowTask{task.sequence, task.kvHead, 0, rows};
  Arena arena{static_cast<char*>(scratchMemory), 0};
  PrefillScratch scratch(problem, rowTask, arena);
  scratch.rows.forEachTile([&](const QueryTile& tile) {
    scratch.rows.initialise(tile, false);
    scratch.queries.pack(tile);
  });
  const DecodeTiles tiles{task, scratch.rows, scratch.queries};
  scratch.rows.walkKeys(tiles, kPanel, task.keyBegin, task.keyEnd);
  scratch.rows.storePartial(task.partial);
}

inline size_t decodeRowsScratchBytes(const Problem& problem, int64_t rows) {
  return rows > kMaxDecodeRows ? prefillScratchBytes(problem, rows) : decodeScratchBytes(problem, rows);
}

inline void decodeRows(const Problem& problem, const DecodeTask& task, void* scratch) {
  const int64_t rows = problem.sequences[task.sequence].qLen * problem.groupSize;
  (rows > kMaxDecodeRows ? decodePacked : decode)(problem, task, scratch);
}

}  // namespace
}  // namespace sdpa
