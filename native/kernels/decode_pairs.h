// Decode of bfloat16 by vdpbf16ps, where that is faster than float32 FMAs: pairs of channels of K and q, pairs of keys'
// values and weights, as they lie. Weights are rounded to bfloat16, as the tiles do it (tile_prefill.h).
//
// The instruction takes subnormals for zero. So q must be in range; then a subnormal key changes no score that counts.
// Subnormal values count only in rows of o that are as small: V is looked at where there is one. Where a number is out of
// range or a result is not finite, the chunk is done in float32.
#pragma once

#include "../simd/pair_unit.h"
#include "instantiate_tiles.h"
#include "pair_products.h"

namespace sdpa {
namespace {

constexpr int64_t kPairRows = 48;  // from so many rows on, tiles are faster

struct PairProducts : PairProductsOf<PairProducts, BFloat16> {
  using Stored = BFloat16;
  using Query = BFloat16;
  using Weight = BFloat16;
  using Probability = BFloat16;
  using Operand = Pairs;
  using Sum = Vec;
  static constexpr bool kHasUnits = false;

  static Pairs load(const BFloat16* p) { return Pairs::load(p); }
  static Pairs loadPartial(const BFloat16* p, int n) { return Pairs::loadPartial(p, n); }
  static Pairs loadQuery(const BFloat16* p) { return Pairs::load(p); }
  static Pairs loadUpTo(const BFloat16* p, int64_t n) {
    return n >= kStep ? Pairs::load(p) : Pairs::loadPartial(p, static_cast<int>(n));
  }
  static Vec multiplyAdd(Pairs a, Pairs b, Vec sum) { return PairUnit::multiplyAdd(a, b, sum); }
  static Vec total(Vec sum) { return sum; }
  static Pairs broadcast(const BFloat16* weights) { return Pairs::broadcast(weights); }

  static float packQuery(const BFloat16* q, int64_t headDim, float scale, int64_t stride, BFloat16* out) {
    for (int64_t d = 0; d < headDim; d += kStep, out += stride) loadUpTo(q + d, headDim - d).store(&out->bits);
    return scale;
  }
  template <class Q>
  static float packQuery(const Q*, int64_t, float, int64_t, BFloat16*) {  // bfloat16 only
    return 1.0f;
  }

  static void finishScores(const KeyBlock<PairProducts>& block, const float* units, int64_t rows, float* scores) {
    for (int64_t row = 0; row < rows; ++row) {
      const Vec factor = Vec::broadcast(units[row]);
      for (int64_t key = 0; key < block.count; key += Vec::kWidth) {
        float* place = scores + row * kDecodeBlock + key;
        (Vec::load(place) * factor).store(place);
      }
    }
  }
  static void storeWeights(Vec weights, BFloat16* out) { PairUnit::storeRounded(weights, out); }
  static void prepareWeights(const ValueBlock<PairProducts>&, int64_t, BFloat16*, float*, float*) {}
};

using PairDecode = Decode<PairProducts>;

inline bool inRange(const BFloat16* row, int64_t dim) {
  RangeCheck range;
  for (int64_t d = 0; d < dim; d += PairProducts::kStep) range.see(PairProducts::loadUpTo(row + d, dim - d));
  return range.good();
}

inline bool queriesInRange(const PairDecode& decode) {
  const Problem& problem = decode.problem;
  for (int64_t r = 0; r < decode.rows; ++r) {
    const RowIndex row = rowIndex(problem, decode.task.kvHead, r);
    const BFloat16* q = static_cast<const BFloat16*>(problem.q) + decode.sequence.qOffset +
                        row.head * problem.qHeadStride + row.query * problem.qRowStride;
    if (!inRange(q, problem.headDim)) return false;
  }
  return true;
}

// Whether a row of o is so small throughout that subnormal values may have made it.
inline bool hasSmallRow(const PairDecode& decode) {
  for (int64_t row = 0; row < decode.rows; ++row) {
    Vec largest = Vec::zero();
    for (int64_t d = 0; d < decode.scratch.channels; d += Vec::kWidth) {
      largest = Vec::max(Vec::abs(Vec::load(decode.scratch.o + row * decode.scratch.channels + d)), largest);
    }
    if (Vec::reduceMax(largest) < 0x1p-92f) return true;
  }
  return false;
}

inline bool valuesInRange(const PairDecode& decode) {
  const Problem& problem = decode.problem;
  const KeyHull hull = hullOf(problem, decode.sequence, 0, decode.sequence.qLen - 1);
  int64_t begin = decode.task.keyBegin, end = decode.task.keyEnd;
  hull.clip(begin, end);
  bool good = true;
  forEachSpan<BFloat16>(problem, decode.sequence, decode.task.kvHead, 0, begin, end,
                        [&](const KeySpan<BFloat16>& span, int64_t from, int64_t to) {
                          for (int64_t i = 0; good && i < to - from; ++i) {
                            good = inRange(span.v + i * span.vRowStride, problem.valueDim);
                          }
                        });
  return good;
}

inline bool decodedByPairs(PairDecode& decode) {
  if (!queriesInRange(decode)) return false;
  decode.run();
  return decode.allFinite(decode.scratch.o) && (!hasSmallRow(decode) || valuesInRange(decode));
}

inline bool decodesByPairs(const Problem& problem, int64_t rows) {
  return rows < kPairRows && problem.qDType == kBFloat16 && problem.kvDType == kBFloat16;
}

inline size_t decodeScratchBytesByPairs(const Problem& problem, int64_t rows) {
  return decodesByPairs(problem, rows) ? decodeScratchBytes(problem, rows) : decodeScratchBytesByTiles(problem, rows);
}

inline void decodeByPairs(const Problem& problem, const DecodeTask& task, void* scratch) {
  if (!decodesByPairs(problem, problem.sequences[task.sequence].qLen * problem.groupSize)) {
    return decodeByTiles(problem, task, scratch);
  }
  PairDecode decode(problem, task, {static_cast<char*>(scratch), 0});
  if (!decodedByPairs(decode)) return kExtended.decode(problem, task, scratch);
  decode.storePartial();
}

constexpr KernelTable withPairDecode(KernelTable table) {
  table.decodeScratchBytes = decodeScratchBytesByPairs;
  table.decode = decodeByPairs;
  return table;
}

}  // namespace
}  // namespace sdpa
