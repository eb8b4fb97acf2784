// What every prefill kernel shares: the query rows of a task cut into tiles, the softmax state and output accumulator
// of each, the walk over key blocks, and the way into the output.
#pragma once

#include "../kernel_table.h"
#include "ahead.h"
#include "online_softmax.h"
#include "scores.h"

namespace sdpa {
namespace {

// One query tile of a task: its rows and its places in the scratch.
struct QueryTile {
  int64_t rowBegin, rows, lanes;  // lanes: rows, rounded up to whole vectors
  int64_t lane;                   // rows of the task before this tile
  KeyHull hull;
  float *oT, *m, *l;
  float* lseSum;                  // what lse takes the logarithm of: l, unless weights were rounded
  int vecs() const { return static_cast<int>(lanes / Vec::kWidth); }
};

struct PrefillRows {
  const Problem& problem;
  const PrefillTask& task;
  const Sequence& sequence;
  int64_t tileRows;     // rows of a tile
  int64_t laneAlign;    // lanes of a tile are a multiple of it
  int64_t channels;     // valueDim, rounded up to what the products write
  float *oT, *m, *l, *lseSum;

  PrefillRows(const Problem& problem_, const PrefillTask& task_, int64_t tileRows_, int64_t laneAlign_,
              int64_t channelAlign, Arena& arena)
      : problem(problem_),
        task(task_),
        sequence(problem_.sequences[task_.sequence]),
        tileRows(tileRows_),
        laneAlign(laneAlign_),
        channels(roundUp(problem_.valueDim, channelAlign)) {
    const int64_t lanes = roundUp(task.rowEnd - task.rowBegin, tileRows);
    oT = arena.take<float>(lanes * channels);
    m = arena.take<float>(lanes);
    l = lseSum = arena.take<float>(lanes);
  }

  // Gives lse a sum of its own.
  void separateLseSum(Arena& arena) {
    lseSum = arena.take<float>(roundUp(task.rowEnd - task.rowBegin, tileRows));
  }

  QueryTile tileAt(int64_t rowBegin) const {
    const int64_t rows = minimum(tileRows, task.rowEnd - rowBegin);
    const int64_t lane = rowBegin - task.rowBegin;
    const int64_t g = problem.groupSize;
    return {rowBegin,
            rows,
            roundUp(rows, laneAlign),
            lane,
            hullOf(problem, sequence, rowBegin / g, (rowBegin + rows - 1) / g),
            oT + lane * channels,
            m + lane,
            l + lane,
            lseSum + lane};
  }

  template <class Fn>
  void forEachTile(Fn fn) const {
    for (int64_t row = task.rowBegin; row < task.rowEnd; row += tileRows) fn(tileAt(row));
  }

  template <class T>
  const T* queryRow(int64_t row) const {
    const RowIndex index = rowIndex(problem, task.kvHead, row);
    return static_cast<const T*>(problem.q) + sequence.qOffset + index.head * problem.qHeadStride +
           index.query * problem.qRowStride;
  }

  template <class T>
  T* outRow(int64_t row) const {
    const RowIndex index = rowIndex(problem, task.kvHead, row);
    return static_cast<T*>(problem.out) + sequence.outOffset + index.head * problem.outHeadStride +
           index.query * problem.outRowStride;
  }

  // The tile's rows of q, or of out, to be asked for.
  void addQueryRows(const QueryTile& tile, Ahead& ahead) const {
    for (int64_t row = tile.rowBegin; row < tile.rowBegin + tile.rows; ++row) {
      const RowIndex index = rowIndex(problem, task.kvHead, row);
      const int64_t element = sequence.qOffset + index.head * problem.qHeadStride + index.query * problem.qRowStride;
      addRow(problem.q, element, problem.headDim, ahead);
    }
  }
  void addOutRows(const QueryTile& tile, Ahead& ahead) const {
    for (int64_t row = tile.rowBegin; row < tile.rowBegin + tile.rows; ++row) {
      const RowIndex index = rowIndex(problem, task.kvHead, row);
      const int64_t element = sequence.outOffset + index.head * problem.outHeadStride + index.query * problem.outRowStride;
      addRow(problem.out, element, problem.valueDim, ahead);
    }
  }
  void addRow(const void* data, int64_t element, int64_t count, Ahead& ahead) const {
    const int64_t bytes = problem.qDType == kFloat32 ? 4 : 2;
    ahead.add(static_cast<const char*>(data) + bytes * element, bytes * count);
  }

  // Asks for the query rows of the tile after this one.
  template <class T>
  void prefetchQuery(const QueryTile& tile) const {
    for (int64_t row = tile.rowBegin + tileRows; row < minimum(tile.rowBegin + 2 * tileRows, task.rowEnd); ++row) {
      prefetchForRead(queryRow<T>(row), problem.headDim * static_cast<int64_t>(sizeof(T)));
    }
  }

  // A sink logit is a key with no value: m = sink, l = 1, o = 0; l is NaN for a sink of Infinity or NaN. Chunks of keys
  // that are merged later start without.
  void initialise(const QueryTile& tile, bool withSinks = true) const {
    memset(tile.oT, 0, static_cast<size_t>(tile.lanes * channels) * sizeof(float));
    for (int64_t i = 0; i < tile.lanes; ++i) {
      const RowIndex row = rowIndex(problem, task.kvHead, tile.rowBegin + minimum(i, tile.rows - 1));
      tile.m[i] = problem.sinks && withSinks ? problem.sinks[row.head] : kNegativeInfinity;
      tile.l[i] = tile.lseSum[i] = tile.m[i] == kNegativeInfinity ? 0.0f : 1.0f + (tile.m[i] - tile.m[i]);
    }
  }

  // kernel.packBlock(origin, begin, end) once for each block that some row of the task sees, then
  // kernel.attend(tile, origin, begin, end) for each tile that sees it; begin, end are relative to origin, and what is
  // packed begins at a multiple of keyAlign. Keys beyond [keyBegin, keyEnd) are not looked at.
  template <class Kernel>
  void walkKeys(Kernel& kernel, int64_t keyAlign, int64_t keyBegin = 0, int64_t keyEnd = kOpen) const {
    const KeyHull hull = hullOf(problem, sequence, task.rowBegin / problem.groupSize,
                                (task.rowEnd - 1) / problem.groupSize);
    for (int64_t origin = keyBegin / kKeyBlock * kKeyBlock; origin < minimum(hull.maxEnd, keyEnd); origin += kKeyBlock) {
      if (problem.cancelled && SDPA_READ_FLAG(problem.cancelled)) return;
      int64_t begin = maximum(origin, keyBegin), end = minimum(origin + kKeyBlock, keyEnd);
      hull.clip(begin, end);
      if (begin >= end) continue;
      const int64_t packedBegin = origin + (begin - origin) / keyAlign * keyAlign;
      kernel.packBlock(origin, packedBegin - origin, end - origin);
      forEachTile([&](const QueryTile& tile) {
        if (problem.cancelled && SDPA_READ_FLAG(problem.cancelled)) return;
        int64_t tileBegin = begin, tileEnd = end;
        tile.hull.clip(tileBegin, tileEnd);
        if (tileBegin < tileEnd) kernel.attend(tile, origin, tileBegin - origin, tileEnd - origin);
      });
    }
  }

  // What has been gathered so far, as DecodeTask::partial: [m: rows][l: rows][o: rows * valueDim]. The l is the one of lse;
  // o is brought to it from the other, so that o / l stays what it was.
  void storePartial(float* partial) const {
    constexpr int W = Vec::kWidth;
    const int64_t count = task.rowEnd - task.rowBegin;
    forEachTile([&](const QueryTile& tile) {
      memcpy(partial + tile.lane, tile.m, static_cast<size_t>(tile.rows) * sizeof(float));
      memcpy(partial + count + tile.lane, tile.lseSum, static_cast<size_t>(tile.rows) * sizeof(float));
      for (int64_t lane = 0; lane < tile.rows; lane += W) {
        const Vec l = Vec::load(tile.l + lane), sum = Vec::load(tile.lseSum + lane);
        const Vec factor = Vec::select(l == sum, Vec::broadcast(1.0f), sum / l);
        for (int64_t d = 0; d < problem.valueDim; d += W) {
          const int64_t n = minimum(W, problem.valueDim - d);
          Vec block[W];
          for (int j = 0; j < W; ++j) {
            block[j] = j < n ? Vec::load(tile.oT + (d + j) * tile.lanes + lane) * factor : Vec::zero();
          }
          Vec::transpose(block);
          for (int64_t i = 0; i < W && lane + i < tile.rows; ++i) {
            storeUpTo(block[i], n, partial + 2 * count + (tile.lane + lane + i) * problem.valueDim + d);
          }
        }
      }
    });
  }

  // out = oT^T / l, lse = m + log l.
  template <class T>
  void finalize(const QueryTile& tile) const {
    constexpr int W = Vec::kWidth;
    for (int64_t lane = 0; lane < tile.rows; lane += W) {
      const Vec l = Vec::load(tile.l + lane);
      const Mask empty = l == Vec::zero();
      T* outRows[W] = {};
      for (int64_t i = 0; i < W && lane + i < tile.rows; ++i) {
        const RowIndex row = rowIndex(problem, task.kvHead, tile.rowBegin + lane + i);
        outRows[i] = outRow<T>(tile.rowBegin + lane + i);
        const int64_t next = tile.rowBegin + lane + i + tileRows;
        if (next < task.rowEnd) prefetchForWrite(outRow<T>(next), problem.valueDim * static_cast<int64_t>(sizeof(T)));
        if (problem.lse) {
          problem.lse[sequence.lseOffset + row.head * problem.lseHeadStride + row.query * problem.lseRowStride] =
              logSumExp(tile.m[lane + i], tile.lseSum[lane + i]);
        }
      }
      for (int64_t d = 0; d < problem.valueDim; d += W) {
        const int64_t n = minimum(W, problem.valueDim - d);
        Vec block[W];
SDPA_UNROLL
        for (int j = 0; j < W; ++j) {
          block[j] = j < n ? Vec::select(empty, Vec::zero(), Vec::load(tile.oT + (d + j) * tile.lanes + lane) / l)
                           : Vec::zero();
        }
        Vec::transpose(block);
SDPA_UNROLL
        for (int i = 0; i < W; ++i) {
          if (lane + i < tile.rows) storeUpTo(block[i], n, outRows[i] + d);
        }
      }
    }
  }

  SDPA_NO_INLINE void finalize(const QueryTile& tile) const {
    if (problem.qDType == kFloat32) finalize<float>(tile);
    if (problem.qDType == kFloat16) finalize<Float16>(tile);
    if (problem.qDType == kBFloat16) finalize<BFloat16>(tile);
  }

  void finalize() const {
    forEachTile([&](const QueryTile& tile) { finalize(tile); });
  }
};

}  // namespace
}  // namespace sdpa
