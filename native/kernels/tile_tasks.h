// The tasks of a table with tiles: which cut the inputs ask for, and prefill and decode by it. Others are left to the ISA that
// this one extends.
#pragma once

#include "tile_prefill.h"

namespace sdpa {
namespace {

// fn(Cut{}) with the cut that the inputs ask for; otherwise(), where float32 FMAs are as fast as its products, or faster.
template <class Fn, class Otherwise>
inline auto withCut(const Problem& problem, Fn fn, Otherwise otherwise) {
  const auto ifProfitable = [&](auto cut) {
    return decltype(cut)::kProducts <= TileUnit::kProfitableProducts ? fn(cut) : otherwise();
  };
  if (problem.qDType == kFloat32 || problem.kvDType == kFloat32) {
    if (problem.precision == 2) return ifProfitable(Cut1{});
    return problem.precision == 1 ? ifProfitable(Cut2{}) : ifProfitable(Cut3{});
  }
  const bool isFloat16 = problem.qDType == kFloat16 || problem.kvDType == kFloat16;
  return isFloat16 ? ifProfitable(CutFloat16{}) : ifProfitable(Cut1{});
}

template <class Cut>
inline void runTilePrefill(const Problem& problem, const PrefillTask& task, Arena arena) {
  TilePrefill<Cut> run(problem, task, arena, false);
  TileUnit::begin();
  run.rows.forEachTile([&](const QueryTile& tile) {
    run.rows.initialise(tile);
    run.pack(tile);
  });
  run.rows.walkKeys(run, kTileEdge);
  TileUnit::end();
  run.rows.finalize();
}

// Of prefill and of decode, whichever takes more.
inline size_t prefillScratchBytesByTiles(const Problem& problem, int64_t rows) {
  return withCut(
      problem,
      [&](auto cut) {
        Arena arena{nullptr, 0};
        const TilePrefill<decltype(cut)> scratch(problem, {0, 0, 0, rows}, arena, true);
        (void)scratch;
        return arena.used;
      },
      [&] { return kExtended.prefillScratchBytes(problem, rows); });
}

inline void prefillByTiles(const Problem& problem, const PrefillTask& task, void* scratch) {
  withCut(
      problem,
      [&](auto cut) { runTilePrefill<decltype(cut)>(problem, task, {static_cast<char*>(scratch), 0}); },
      [&] { kExtended.prefill(problem, task, scratch); });
}

// A chunk of keys against all rows of a KV head, as decode.h does it, for so many rows that arithmetic counts.
template <class Cut>
inline void runTileDecode(const Problem& problem, const DecodeTask& task, Arena arena) {
  const int64_t rows = problem.sequences[task.sequence].qLen * problem.groupSize;
  const PrefillTask rowTask{task.sequence, task.kvHead, 0, rows};
  TilePrefill<Cut> run(problem, rowTask, arena, true);
  TileUnit::begin();
  run.rows.forEachTile([&](const QueryTile& tile) {
    run.rows.initialise(tile, false);
    run.pack(tile);
  });
  run.rows.walkKeys(run, kTileEdge, task.keyBegin, task.keyEnd);
  TileUnit::end();
  run.rows.storePartial(task.partial);
}

inline bool decodesByTiles(const Problem& problem, int64_t rows) {
  return rows >= TileUnit::kDecodeRows && withCut(problem, [](auto) { return true; }, [] { return false; });
}

inline size_t decodeScratchBytesByTiles(const Problem& problem, int64_t rows) {
  return decodesByTiles(problem, rows) ? prefillScratchBytesByTiles(problem, rows)
                                       : kExtended.decodeScratchBytes(problem, rows);
}

inline void decodeByTiles(const Problem& problem, const DecodeTask& task, void* scratch) {
  if (!decodesByTiles(problem, problem.sequences[task.sequence].qLen * problem.groupSize)) {
    return kExtended.decode(problem, task, scratch);
  }
  withCut(
      problem, [&](auto cut) { runTileDecode<decltype(cut)>(problem, task, {static_cast<char*>(scratch), 0}); }, [] {});
}

}  // namespace
}  // namespace sdpa
