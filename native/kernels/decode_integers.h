// Decode of an int8 cache in whole numbers, by vpdpwssd: q and the weights become int16, each row of a block with a unit
// of its own, and every sum of products is exact. A product takes half the instructions of a float32 FMA's way and K and V
// half the conversions: int8 to int16 is one instruction for 32 numbers.
//
// Rounding q to 16 bits adds at most 2^-16 of the row's largest number to each, a 256th of what rounding K to int8 has
// added; likewise the weights, of the block's largest. From 513 channels on q gets fewer bits, so that a score has its
// place in 32: 2^-14 at 2048, the most that is done so. q of float16 and bfloat16 gets this; q of float32 with 'high' or
// 'medium' precision. Where a number has no place in int16, because it is not finite or all are tiny, the chunk is done in
// float32.
#pragma once

#include "../simd/integer_unit.h"
#include "instantiate_tiles.h"
#include "pair_products.h"

namespace sdpa {
namespace {

constexpr float kInt16Max = 32767.0f;
constexpr int64_t kIntegerRows = 48;   // from so many rows on, tiles are faster
constexpr int64_t kIntegerDim = 2048;  // beyond, too few bits are left to q

// The largest whole number that q may be: headDim products of it with -128 lie within 32 bits.
inline float queryLimit(int64_t headDim) {
  const float limit = static_cast<float>(INT32_MAX / (128 * headDim));
  return limit < kInt16Max ? limit : kInt16Max;
}

// The unit in which numbers up to `largest` are whole numbers up to `limit`; NaN where they have none.
inline float unitOf(float largest, float limit) { return largest > 1e-20f && largest < 1e30f ? largest / limit : NAN; }

struct IntegerProducts : PairProductsOf<IntegerProducts, int8_t> {
  using Stored = int8_t;
  using Query = int16_t;
  using Weight = int16_t;
  using Probability = float;
  using Operand = Pairs;
  using Sum = Wholes;
  static constexpr bool kHasUnits = true;

  static Pairs load(const int8_t* p) { return IntegerUnit::load(p); }
  static Pairs loadPartial(const int8_t* p, int n) { return IntegerUnit::loadPartial(p, n); }
  static Pairs loadQuery(const int16_t* p) { return Pairs::load(reinterpret_cast<const BFloat16*>(p)); }
  static Wholes multiplyAdd(Pairs a, Pairs b, Wholes sum) { return IntegerUnit::multiplyAdd(a, b, sum); }
  static Vec total(Wholes sum) { return IntegerUnit::toFloats(sum); }
  static Pairs broadcast(const int16_t* weights) { return Pairs::broadcast(reinterpret_cast<const BFloat16*>(weights)); }

  template <class Q>
  static float packQuery(const Q* q, int64_t headDim, float scale, int64_t stride, int16_t* out) {
    constexpr int64_t W = Vec::kWidth;
    Vec largest = Vec::zero(), poison = Vec::zero();  // 0 * x is NaN exactly where x is not finite
    for (int64_t d = 0; d < headDim; d += W) {
      const Vec x = loadUpTo(q + d, headDim - d);
      largest = Vec::max(Vec::abs(x), largest);
      poison = Vec::fma(x, Vec::zero(), poison);
    }
    const float unit = unitOf(hasNaN(poison) ? NAN : Vec::reduceMax(largest), queryLimit(headDim));
    const Vec factor = Vec::broadcast(1.0f / unit);
    for (int64_t d = 0; d < roundUp(headDim, kStep); d += W) {
      int16_t* place = out + d / kStep * stride + d % kStep;
      IntegerUnit::storeRounded(d < headDim ? loadUpTo(q + d, headDim - d) * factor : Vec::zero(), place);
    }
    return unit * scale;
  }

  static void finishScores(const KeyBlock<IntegerProducts>& block, const float* units, int64_t rows, float* scores) {
    const RowScales scales(block.k, block.stride, block.headDim, block.count);
    for (int64_t row = 0; row < rows; ++row) {
      const Vec unit = Vec::broadcast(units[row]);
      for (int64_t key = 0; key < block.count; key += Vec::kWidth) {
        float* place = scores + row * kDecodeBlock + key;
        (Vec::load(place) * (Vec::load(scales.scale + key) * unit)).store(place);
      }
    }
  }

  static void storeWeights(Vec weights, float* out) { weights.store(out); }
  static void prepareWeights(const ValueBlock<IntegerProducts>& block, int64_t rows, int16_t* weights, float* units,
                             float* probabilities) {
    const RowScales scales(block.v, block.stride, block.valueDim, block.count);
    scales.multiply(rows, block.count, probabilities);
    const bool haveUnits = haveUnitsFor(scales, block.count);
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = probabilities + row * kDecodeBlock;
      Vec largest = Vec::broadcast(1e-30f);  // less counts for nothing beside values that have a unit
      for (int64_t key = 0; key < block.count; key += Vec::kWidth) largest = Vec::max(Vec::load(from + key), largest);
      const float unit = Vec::reduceMax(largest) / kInt16Max;
      const Vec factor = Vec::broadcast(1.0f / unit);
      for (int64_t key = 0; key < block.count; key += Vec::kWidth) {
        IntegerUnit::storeRounded(Vec::load(from + key) * factor, weights + row * kDecodeBlock + key);
      }
      units[row] = haveUnits ? unit : NAN;
    }
  }

  // Whether every row of values is zero or has numbers that int16 weights can reach.
  static bool haveUnitsFor(const RowScales& scales, int64_t count) {
    const Vec one = Vec::broadcast(1.0f), zero = Vec::zero();
    Vec bad = zero;
    for (int64_t key = 0; key < count; key += Vec::kWidth) {
      const Vec scale = Vec::load(scales.scale + key);
      bad = Vec::max(Vec::select(scale < Vec::broadcast(1e-20f), Vec::select(scale == zero, zero, one), bad), bad);
      bad = Vec::select(scale < Vec::broadcast(1e28f), bad, one);
    }
    return Vec::reduceMax(bad) == 0.0f;
  }
};

using IntegerDecode = Decode<IntegerProducts>;

// Whether every row had a unit, of q and of the weights, and no weight was NaN.
inline bool isWhole(const IntegerDecode& decode) {
  float poison = 0.0f;
  for (int64_t i = 0; i < decode.rows * Vec::kWidth; ++i) poison += decode.scratch.state.l[i];
  return poison - poison == 0.0f && decode.allFinite(decode.scratch.o);
}

inline bool decodedByIntegers(IntegerDecode& decode) {
  decode.initialise();
  for (int64_t row = 0; row < decode.rows; ++row) {
    const float unit = decode.scratch.queryUnits[row];
    if (unit - unit != 0.0f) return false;
  }
  decode.walkKeys();
  return isWhole(decode);
}

inline bool decodesByIntegers(const Problem& problem, int64_t rows) {
  return problem.kvDType == kInt8 && rows < kIntegerRows && problem.headDim <= kIntegerDim &&
         (problem.qDType != kFloat32 || problem.precision > 0);
}

template <size_t (*kOtherwise)(const Problem&, int64_t)>
inline size_t decodeScratchBytesByIntegers(const Problem& problem, int64_t rows) {
  return decodesByIntegers(problem, rows) ? decodeScratchBytes(problem, rows) : kOtherwise(problem, rows);
}

template <void (*kOtherwise)(const Problem&, const DecodeTask&, void*)>
inline void decodeByIntegers(const Problem& problem, const DecodeTask& task, void* scratch) {
  if (!decodesByIntegers(problem, problem.sequences[task.sequence].qLen * problem.groupSize)) {
    return kOtherwise(problem, task, scratch);
  }
  IntegerDecode decode(problem, task, {static_cast<char*>(scratch), 0});
  if (!decodedByIntegers(decode)) return kExtended.decode(problem, task, scratch);
  decode.storePartial();
}

template <size_t (*kOtherwiseBytes)(const Problem&, int64_t), void (*kOtherwise)(const Problem&, const DecodeTask&, void*)>
constexpr KernelTable withIntegerDecode(KernelTable table) {
  table.decodeScratchBytes = decodeScratchBytesByIntegers<kOtherwiseBytes>;
  table.decode = decodeByIntegers<kOtherwise>;
  return table;
}

}  // namespace
}  // namespace sdpa
