// Decode of any number of rows. Few of them read the keys in place (decode.h); for more, arithmetic counts and not memory:
// they go as prefill goes, over packed keys, and leave a partial behind. Many sequences that share a prefix are many rows.
#pragma once

#include "decode.h"
#include "prefill.h"

namespace sdpa {
namespace {

inline void decodePacked(const Problem& problem, const DecodeTask& task, void* scratchMemory) {
  const int64_t rows = problem.sequences[task.sequence].qLen * problem.groupSize;
  const PrefillTask rowTask{task.sequence, task.kvHead, 0, rows};
  Arena arena{static_cast<char*>(scratchMemory), 0};
  PrefillScratch scratch(problem, rowTask, arena);
  scratch.rows.forEachTile([&](const QueryTile& tile) {
    scratch.rows.initialise(tile, false);
    scratch.queries.pack(tile);
  });
  scratch.rows.walkKeys(scratch.queries, kPanel, task.keyBegin, task.keyEnd);
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
