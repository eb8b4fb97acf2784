// Prefill: many query rows against many keys.
//
// FlashAttention-2 (Dao 2023, §3.1 Alg. 1) with the loops turned round, as a CPU wants them. A task owns up to a few
// thousand query rows of one KV head (all heads of the group, so that K and V are packed once for all of them). It walks
// the keys in blocks of kKeyBlock; each block is packed once into panels that stay in L2, and then meets every query
// tile of the task that can see it:
//
//   for each key block that some row of the task can see
//     pack K, V of the block                         // storage dtype -> float32; notes non-finite values of V
//     for each query tile that can see the block     // skipped tiles never enter
//       scores = K qT                                // [keys][lanes]; scale is already in qT
//       applyScorePasses(scores)                     // softcap, ALiBi, bias, mask; intervals at edge tiles only
//       updateSoftmax(m, l, scores)                  // scores become weights; rescale = exp(m before - m after)
//       oT = oT * rescale + V^T weights              // the rescaling rides on the accumulators' write-back
//   finalize: out = oT^T / l, lse = m + log l        // divided once, at the end
//
// Memory traffic of one tile and block, headDim = valueDim = D, L lanes, 4 (2·D·L) bytes of qT and oT in and out of L2
// for 4·L·kKeyBlock·D FLOPs: under 0.05 bytes a FLOP. The panels are read from L2 once a tile. Scratch is
// O(rows·(D + Dv)) for a bounded number of rows, whatever the sequence length.
//
// Bits: a row's result depends on its own data and on the absolute block boundaries only, never on the rows beside it
// or on how rows are dealt to tasks.
#pragma once

#include "../kernel_table.h"
#include "gemm.h"
#include "online_softmax.h"
#include "scores.h"

namespace sdpa {
namespace {

// Scratch of one task; sizes in tile.h's layouts. tiles * kTileRows lanes in all.
struct PrefillScratch {
  float *qT, *oT, *m, *l;
  float *kPanels, *vPanels, *scores, *savedScores, *rescale;
  uint8_t* finiteKeys;  // [kKeyBlock]; meaningful when the block holds a non-finite value

  PrefillScratch(const Problem& problem, int64_t rows, Arena& arena) {
    const int64_t lanes = roundUp(rows, kTileRows);
    qT = arena.take<float>(lanes * problem.headDim);
    oT = arena.take<float>(lanes * roundUp(problem.valueDim, kGemmRows));
    m = arena.take<float>(lanes);
    l = arena.take<float>(lanes);
    kPanels = arena.take<float>(kKeyBlock * problem.headDim);
    vPanels = arena.take<float>(kKeyBlock * roundUp(problem.valueDim, kPanel));
    scores = arena.take<float>(kKeyBlock * kTileRows);
    savedScores = arena.take<float>(kKeyBlock * kTileRows);
    rescale = arena.take<float>(kTileRows);
    finiteKeys = arena.take<uint8_t>(kKeyBlock);
  }
};

// One query tile of a task: its rows and its places in the scratch.
struct QueryTile {
  int64_t rowBegin, rows, lanes;
  KeyHull hull;
  float *qT, *oT, *m, *l;
  int vecs() const { return static_cast<int>(lanes / Vec::kWidth); }
};

struct Prefill {
  const Problem& problem;
  const PrefillTask& task;
  const Sequence& sequence;
  PrefillScratch scratch;

  QueryTile tileAt(int64_t rowBegin) const {
    const int64_t rows = minimum(kTileRows, task.rowEnd - rowBegin);
    const int64_t lane = rowBegin - task.rowBegin;
    const int64_t g = problem.groupSize;
    return {rowBegin,
            rows,
            roundUp(rows, Vec::kWidth),
            hullOf(problem, sequence, rowBegin / g, (rowBegin + rows - 1) / g),
            scratch.qT + lane * problem.headDim,
            scratch.oT + lane * roundUp(problem.valueDim, kGemmRows),
            scratch.m + lane,
            scratch.l + lane};
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

  template <class T>
  void packQuery(const QueryTile& tile) const {
    const T* rows[kTileRows];
    for (int64_t i = 0; i < tile.lanes; ++i) rows[i] = i < tile.rows ? queryRow<T>(tile.rowBegin + i) : nullptr;
    packTransposed(rows, tile.lanes, problem.headDim, problem.scale, tile.qT, tile.lanes);
    for (int64_t row = tile.rowBegin + kTileRows; row < minimum(tile.rowBegin + 2 * kTileRows, task.rowEnd); ++row) {
      prefetchForRead(queryRow<T>(row), problem.headDim * static_cast<int64_t>(sizeof(T)));
    }
  }

  // A sink logit is a key with no value: m = sink, l = 1, o = 0.
  void initialise(const QueryTile& tile) const {
    for (int64_t i = 0; i < tile.lanes * roundUp(problem.valueDim, kGemmRows); ++i) tile.oT[i] = 0.0f;
    for (int64_t i = 0; i < tile.lanes; ++i) {
      const RowIndex row = rowIndex(problem, task.kvHead, tile.rowBegin + minimum(i, tile.rows - 1));
      tile.m[i] = problem.sinks ? problem.sinks[row.head] : kNegativeInfinity;
      tile.l[i] = tile.m[i] == kNegativeInfinity ? 0.0f : 1.0f;
    }
    if (problem.qDType == kFloat32) packQuery<float>(tile);
    if (problem.qDType == kFloat16) packQuery<Float16>(tile);
    if (problem.qDType == kBFloat16) packQuery<BFloat16>(tile);
  }

  // Packs keys [begin, end), both relative to `origin`. Returns whether every value is finite.
  template <class T>
  bool packBlock(int64_t origin, int64_t begin, int64_t end) const {
    const T* k = static_cast<const T*>(problem.k) + sequence.kOffset + task.kvHead * problem.kHeadStride +
                 origin * problem.kRowStride;
    const T* v = static_cast<const T*>(problem.v) + sequence.vOffset + task.kvHead * problem.vHeadStride +
                 origin * problem.vRowStride;
    packKeys(k, problem.kRowStride, begin, end, problem.headDim, scratch.kPanels);
    return packValues(v, problem.vRowStride, begin, end, problem.valueDim, scratch.vPanels);
  }

  bool packBlock(int64_t origin, int64_t begin, int64_t end) const {
    if (problem.kvDType == kFloat16) return packBlock<Float16>(origin, begin, end);
    if (problem.kvDType == kBFloat16) return packBlock<BFloat16>(origin, begin, end);
    return packBlock<float>(origin, begin, end);
  }

  // One tile against keys [begin, end) (relative to origin) of the packed block.
  void attend(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end, bool finite) const {
    const int64_t lanes = tile.lanes;
    const int64_t rowBegin = begin / kGemmRows * kGemmRows, rowEnd = roundUp(end, kGemmRows);
    gemm(tile.vecs(), {scratch.kPanels, kPanel * problem.headDim, rowBegin, rowEnd, tile.qT, problem.headDim,
                       kDepthChain, Update::kStore, nullptr, scratch.scores});
    const ScoreTile scores{&problem,     &sequence, task.kvHead, tile.rowBegin, tile.rows, lanes,
                           origin,       begin,     end,         scratch.scores};
    applyScorePasses(scores, tile.hull);
    if (!finite) memcpy(scratch.savedScores, scratch.scores, static_cast<size_t>(end * lanes) * sizeof(float));
    for (int64_t lane = 0; lane < lanes; lane += Vec::kWidth) {
      updateSoftmax(scratch.scores + lane, scratch.scores + lane, lanes, begin, end, tile.m + lane, tile.l + lane,
                    scratch.rescale + lane);
    }
    gemm(tile.vecs(), {scratch.vPanels + begin * kPanel, kKeyBlock * kPanel, 0, roundUp(problem.valueDim, kGemmRows),
                       scratch.scores + begin * lanes, end - begin, kKeyChain, Update::kScaleAndAdd, scratch.rescale,
                       tile.oT});
    if (!finite) addNonFinite(tile, origin, begin, end);
  }

  // 0 * NaN would spread a masked value, so non-finite values are taken out of the packed block, and added afterwards
  // from the source, to the rows that see the key. Rare, so plain.
  void removeNonFinite(int64_t begin, int64_t end) const {
    for (int64_t key = begin; key < end; ++key) {
      scratch.finiteKeys[key] = 1;
      for (int64_t d = 0; d < problem.valueDim; ++d) {
        float& value = scratch.vPanels[(d / kPanel) * (kKeyBlock * kPanel) + key * kPanel + d % kPanel];
        if (value - value == 0.0f) continue;
        scratch.finiteKeys[key] = 0;
        value = 0.0f;
      }
    }
  }

  void addNonFinite(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    for (int64_t key = begin; key < end; ++key) {
      if (scratch.finiteKeys[key]) continue;
      for (int64_t d = 0; d < problem.valueDim; ++d) {
        const float value = storedValue(problem, sequence, task.kvHead, origin + key, d);
        if (value - value == 0.0f) continue;
        for (int64_t lane = 0; lane < tile.lanes; ++lane) {
          if (scratch.savedScores[key * tile.lanes + lane] == kNegativeInfinity) continue;
          tile.oT[d * tile.lanes + lane] += scratch.scores[key * tile.lanes + lane] * value;
        }
      }
    }
  }

  void walkKeys() const {
    const KeyHull hull = hullOf(problem, sequence, task.rowBegin / problem.groupSize,
                                (task.rowEnd - 1) / problem.groupSize);
    for (int64_t origin = 0; origin < hull.maxEnd; origin += kKeyBlock) {
      if (problem.cancelled && *problem.cancelled) return;
      int64_t begin = origin, end = origin + kKeyBlock;
      hull.clip(begin, end);
      if (begin >= end) continue;
      begin = origin + (begin - origin) / kPanel * kPanel;
      const bool finite = packBlock(origin, begin - origin, end - origin);
      if (!finite) removeNonFinite(begin - origin, end - origin);
      for (int64_t row = task.rowBegin; row < task.rowEnd; row += kTileRows) {
        const QueryTile tile = tileAt(row);
        int64_t tileKeysBegin = begin, tileKeysEnd = end;
        tile.hull.clip(tileKeysBegin, tileKeysEnd);
        if (tileKeysBegin < tileKeysEnd) {
          attend(tile, origin, tileKeysBegin - origin, tileKeysEnd - origin, finite);
        }
      }
    }
  }

  template <class T>
  void finalize(const QueryTile& tile) const {
    constexpr int W = Vec::kWidth;
    for (int64_t lane = 0; lane < tile.rows; lane += W) {
      const Vec l = Vec::load(tile.l + lane);
      const Mask empty = l == Vec::zero();
      T* rows[W] = {};
      for (int64_t i = 0; i < W && lane + i < tile.rows; ++i) {
        const RowIndex row = rowIndex(problem, task.kvHead, tile.rowBegin + lane + i);
        rows[i] = outRow<T>(tile.rowBegin + lane + i);
        const int64_t next = tile.rowBegin + lane + i + kTileRows;
        if (next < task.rowEnd) prefetchForWrite(outRow<T>(next), problem.valueDim * static_cast<int64_t>(sizeof(T)));
        if (problem.lse) {
          problem.lse[sequence.lseOffset + row.head * problem.lseHeadStride + row.query * problem.lseRowStride] =
              logSumExp(tile.m[lane + i], tile.l[lane + i]);
        }
      }
      for (int64_t d = 0; d < problem.valueDim; d += W) {
        const int64_t n = minimum(W, problem.valueDim - d);
        Vec block[W];
        for (int j = 0; j < W; ++j) {
          block[j] = j < n ? Vec::select(empty, Vec::zero(), Vec::load(tile.oT + (d + j) * tile.lanes + lane) / l)
                           : Vec::zero();
        }
        Vec::transpose(block);
        for (int64_t i = 0; i < W && lane + i < tile.rows; ++i) storeUpTo(block[i], n, rows[i] + d);
      }
    }
  }
};

inline size_t prefillScratchBytes(const Problem& problem, int64_t rows) {
  Arena arena{nullptr, 0};
  const PrefillScratch scratch(problem, rows, arena);
  (void)scratch;
  return arena.used;
}

inline void prefill(const Problem& problem, const PrefillTask& task, void* scratchMemory) {
  Arena arena{static_cast<char*>(scratchMemory), 0};
  const Prefill run{problem, task, problem.sequences[task.sequence],
                    PrefillScratch(problem, task.rowEnd - task.rowBegin, arena)};
  for (int64_t row = task.rowBegin; row < task.rowEnd; row += kTileRows) run.initialise(run.tileAt(row));
  run.walkKeys();
  for (int64_t row = task.rowBegin; row < task.rowEnd; row += kTileRows) {
    if (problem.qDType == kFloat32) run.finalize<float>(run.tileAt(row));
    if (problem.qDType == kFloat16) run.finalize<Float16>(run.tileAt(row));
    if (problem.qDType == kBFloat16) run.finalize<BFloat16>(run.tileAt(row));
  }
}

}  // namespace
}  // namespace sdpa
