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

#include "gemm.h"
#include "prefill_task.h"

namespace sdpa {
namespace {

struct Float32Prefill {
  const Problem& problem;
  const PrefillRows& rows;
  float *kPanels, *vPanels, *scores, *savedScores, *rescale;
  uint8_t* finiteKeys;       // [kKeyBlock]; meaningful when the block holds a non-finite value
  bool finiteValues = true;  // of the packed block

  Float32Prefill(const PrefillRows& rows_, Arena& arena) : problem(rows_.problem), rows(rows_) {
    kPanels = arena.take<float>(kKeyBlock * problem.headDim);
    vPanels = arena.take<float>(kKeyBlock * roundUp(problem.valueDim, kPanel));
    scores = arena.take<float>(kKeyBlock * rows.tileRows);
    savedScores = arena.take<float>(kKeyBlock * rows.tileRows);
    rescale = arena.take<float>(rows.tileRows);
    finiteKeys = arena.take<uint8_t>(kKeyBlock);
  }

  template <class T>
  void packQuery(const QueryTile& tile, float* qT) const {
    const T* queryRows[kTileRows];
    float scales[kTileRows];
    for (int64_t i = 0; i < tile.lanes; ++i) {
      queryRows[i] = i < tile.rows ? rows.queryRow<T>(tile.rowBegin + i) : nullptr;
      scales[i] = problem.scale;
    }
    packTransposed(queryRows, tile.lanes, problem.headDim, scales, qT, tile.lanes);
  }

  void packQuery(const QueryTile& tile, float* qT) const {
    if (problem.qDType == kFloat32) packQuery<float>(tile, qT);
    if (problem.qDType == kFloat16) packQuery<Float16>(tile, qT);
    if (problem.qDType == kBFloat16) packQuery<BFloat16>(tile, qT);
  }

  template <class T>
  bool packBlockOf(int64_t origin, int64_t begin, int64_t end) const {
    bool finite = true;
    forEachSpan<T>(problem, rows.sequence, rows.task.kvHead, origin, begin, end,
                   [&](const KeySpan<T>& span, int64_t from, int64_t to) {
                     packKeys(span.k, span.kRowStride, from, to, problem.headDim, kPanels);
                     finite = packValues(span.v, span.vRowStride, from, to, problem.valueDim, vPanels) && finite;
                   });
    return finite;
  }

  // Packs keys [begin, end), both relative to `origin`; begin is a multiple of kPanel.
  void packBlock(int64_t origin, int64_t begin, int64_t end) {
    if (problem.kvDType == kFloat32) finiteValues = packBlockOf<float>(origin, begin, end);
    if (problem.kvDType == kFloat16) finiteValues = packBlockOf<Float16>(origin, begin, end);
    if (problem.kvDType == kBFloat16) finiteValues = packBlockOf<BFloat16>(origin, begin, end);
    if (problem.kvDType == kInt8) finiteValues = packBlockOf<int8_t>(origin, begin, end);
    if (!finiteValues) removeNonFinite(begin, end);
  }

  Product productOfKeys(const float* qT, int64_t begin, int64_t end) const {
    return {kPanels,         kPanel * problem.headDim, begin / kGemmRows * kGemmRows, roundUp(end, kGemmRows), qT,
            problem.headDim, kDepthChain,              Update::kStore,                nullptr,                 scores};
  }
  Product productOfValues(const QueryTile& tile, int64_t begin, int64_t end) const {
    return {vPanels + begin * kPanel, kKeyBlock * kPanel, 0, roundUp(problem.valueDim, kGemmRows),
            scores + begin * tile.lanes, end - begin, kKeyChain, Update::kScaleAndAdd, rescale, tile.oT};
  }

  // The scores of one tile against keys [begin, end) (relative to origin) of the packed block, through all passes. Raises
  // `maxima` [lanes] to them where it is wanted, in the product's registers if no pass follows.
  void computeScores(const QueryTile& tile, const float* qT, int64_t origin, int64_t begin, int64_t end,
                     Ahead* ahead = nullptr, float* maxima = nullptr) const {
    const ScoreTile scoreTile{&problem, &rows.sequence, rows.task.kvHead, tile.rowBegin, tile.rows, tile.lanes,
                              origin,   begin,          end,              scores};
    Product product = productOfKeys(qT, begin, end);
    const bool isFinal = begin == product.rowBegin && end == product.rowEnd && !hasScorePasses(scoreTile, tile.hull);
    product.ahead = ahead;
    product.maxima = isFinal ? maxima : nullptr;
    gemm(tile.vecs(), product);
    if (isFinal) return;
    applyScorePasses(scoreTile, tile.hull);
    if (maxima) raiseMaxima(tile.vecs(), scores, tile.lanes, begin, end, maxima);
  }

  // One tile against the same keys.
  void attend(const QueryTile& tile, const float* qT, int64_t origin, int64_t begin, int64_t end,
              Ahead* ahead = nullptr) const {
    const int64_t lanes = tile.lanes;
    Product values = productOfValues(tile, begin, end);
    values.ahead = ahead;
    if (ahead) ahead->spread(registerTiles(productOfKeys(qT, begin, end)) + registerTiles(values));
    float maxima[kTileRows];
    memcpy(maxima, tile.m, static_cast<size_t>(lanes) * sizeof(float));
    computeScores(tile, qT, origin, begin, end, ahead, maxima);
    if (!finiteValues) memcpy(savedScores, scores, static_cast<size_t>(end * lanes) * sizeof(float));
    updateSoftmax(tile.vecs(), {scores, scores, lanes, begin, end, maxima, tile.m, tile.l, rescale});
    gemm(tile.vecs(), values);
    if (!finiteValues) addNonFinite(tile, origin, begin, end);
  }

  // 0 * NaN would spread a masked value, so non-finite values are taken out of the packed block, and added afterwards
  // from the source, to the rows that see the key. Rare, so plain.
  void removeNonFinite(int64_t begin, int64_t end) const {
    for (int64_t key = begin; key < end; ++key) {
      finiteKeys[key] = 1;
      for (int64_t d = 0; d < problem.valueDim; ++d) {
        float& value = vPanels[(d / kPanel) * (kKeyBlock * kPanel) + key * kPanel + d % kPanel];
        if (value - value == 0.0f) continue;
        finiteKeys[key] = 0;
        value = 0.0f;
      }
    }
  }

  void addNonFinite(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    for (int64_t key = begin; key < end; ++key) {
      if (finiteKeys[key]) continue;
      for (int64_t d = 0; d < problem.valueDim; ++d) {
        const float value = storedValue(problem, rows.sequence, rows.task.kvHead, origin + key, d);
        if (value - value == 0.0f) continue;
        for (int64_t lane = 0; lane < tile.lanes; ++lane) {
          if (savedScores[key * tile.lanes + lane] == kNegativeInfinity) continue;
          tile.oT[d * tile.lanes + lane] += scores[key * tile.lanes + lane] * value;
        }
      }
    }
  }
};

// The query tiles of a task in float32, packed once.
struct Float32Queries {
  Float32Prefill& kernel;
  float* qT;  // [lanes of the task][headDim], a tile behind the other

  Float32Queries(Float32Prefill& kernel_, Arena& arena) : kernel(kernel_) {
    const PrefillTask& task = kernel.rows.task;
    qT = arena.take<float>(roundUp(task.rowEnd - task.rowBegin, kernel.rows.tileRows) * kernel.problem.headDim);
  }
  float* of(const QueryTile& tile) const { return qT + tile.lane * kernel.problem.headDim; }
  void pack(const QueryTile& tile) const { kernel.packQuery(tile, of(tile)); }
  void packBlock(int64_t origin, int64_t begin, int64_t end) { kernel.packBlock(origin, begin, end); }

  // A tile is packed when it meets its first keys, and written when it has met its last: it is in the caches then. What
  // the tile after it touches is asked for meanwhile.
  void attend(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    const PrefillRows& rows = kernel.rows;
    if (meetsFirstKey(tile, origin)) {
      rows.initialise(tile);
      pack(tile);
    }
    Ahead ahead;
    const int64_t next = tile.rowBegin + tile.rows;
    if (next < rows.task.rowEnd) askFor(rows.tileAt(next), origin, ahead);
    kernel.attend(tile, of(tile), origin, begin, end, &ahead);
    if (meetsLastKey(tile, origin)) rows.finalize(tile);
  }

  static bool meetsFirstKey(const QueryTile& tile, int64_t origin) { return origin <= tile.hull.firstKey(); }
  static bool meetsLastKey(const QueryTile& tile, int64_t origin) { return origin + kKeyBlock >= tile.hull.lastKey(); }

  void askFor(const QueryTile& tile, int64_t origin, Ahead& ahead) const {
    const int64_t floatBytes = static_cast<int64_t>(sizeof(float));
    if (meetsFirstKey(tile, origin)) kernel.rows.addQueryRows(tile, ahead);
    if (meetsLastKey(tile, origin)) kernel.rows.addOutRows(tile, ahead);
    ahead.add(of(tile), tile.lanes * kernel.problem.headDim * floatBytes);
    ahead.add(tile.oT, tile.lanes * kernel.rows.channels * floatBytes);
  }
};

// The scratch of one task, laid out.
struct PrefillScratch {
  PrefillRows rows;
  Float32Prefill kernel;
  Float32Queries queries;

  PrefillScratch(const Problem& problem, const PrefillTask& task, Arena& arena)
      : rows(problem, task, kTileRows, Vec::kWidth, kGemmRows, arena), kernel(rows, arena), queries(kernel, arena) {}
};

inline size_t prefillScratchBytes(const Problem& problem, int64_t rows) {
  Arena arena{nullptr, 0};
  const PrefillScratch scratch(problem, {0, 0, 0, rows}, arena);
  (void)scratch;
  return arena.used;
}

inline void prefill(const Problem& problem, const PrefillTask& task, void* scratchMemory) {
  Arena arena{static_cast<char*>(scratchMemory), 0};
  PrefillScratch scratch(problem, task, arena);
  scratch.rows.walkKeys(scratch.queries, kPanel);
  scratch.rows.forEachTile([&](const QueryTile& tile) {
    if (!tile.hull.empty()) return;  // written when it had met its last key
    scratch.rows.initialise(tile);
    scratch.rows.finalize(tile);
  });
}

}  // namespace
}  // namespace sdpa
