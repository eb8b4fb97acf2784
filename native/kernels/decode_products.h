// How decode multiplies: rows of q with K and V where they lie, in one storage dtype. A Products type says what an operand
// is; decode_scores.h and decode_values.h are written over it.
//
//   Stored, Query, Weight   elements of K and V, of the packed q, of the weights
//   Probability             what the softmax leaves, from which prepareWeights makes weights
//   Operand                 a vector of kStep elements of K or q, or of kValueKeys keys' values of channels
//   Sum                     a sum of products in each lane, and total() of it in float32
//   kGranule                channels that a tile of o comes in: kGranule / width vectors
//   kHasUnits               whether sums are whole numbers, to be multiplied by a unit of each row
#pragma once

#include "pack.h"

namespace sdpa {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kLookaheadBytes = 32 << 10;  // how far ahead of use K and V are asked for
constexpr int64_t kNearBytes = 16 << 10;       // half of L1

// K or V ahead of what is in use. Its cache lines are asked for while those before them are used: one at a time (in bursts,
// they stall the loads behind them), and in the order of memory, so that the prefetchers of the hardware see one stream.
struct Lookahead {
  const char* next;    // null: nothing is asked for
  int64_t rowStride;   // bytes from row to row
  int64_t rowBytes;

  template <class T>
  static Lookahead of(const T* rows, int64_t stride, int64_t dim) {
    constexpr int64_t kBytes = sizeof(T);
    const int64_t ahead = kLookaheadBytes / maximum(dim * kBytes, 1) + 1;
    return {reinterpret_cast<const char*>(rows + ahead * stride), stride * kBytes, dim * kBytes};
  }
  static Lookahead none() { return {nullptr, 0, 0}; }
  // Otherwise the lines of a block are taken to lie together; its last ones are then left over.
  bool hasGaps() const { return rowStride - rowBytes >= 16; }
  void askForRest(int64_t count) const {
    if (!next || hasGaps() || rowStride == rowBytes) return;
    for (const char* line = next + count * rowBytes; line < next + count * rowStride + kLineBytes; line += kLineBytes) {
      SDPA_PREFETCH_READ(line);
    }
  }
};

// Brings the rows of the next phase from L2, where Lookahead has put them, into L1; not so many that they drive out those
// in use.
template <class T>
inline void bringNear(const T* rows, int64_t stride, int64_t count) {
  const int64_t bytes = count * stride * static_cast<int64_t>(sizeof(T));
  if (bytes > kNearBytes) return;
  const char* first = reinterpret_cast<const char*>(rows);
  for (const char* line = first; line < first + bytes; line += kLineBytes) SDPA_PREFETCH_NEAR(line);
}

// Where a register tile takes its lines from.
struct LineCursor {
  const char* next;
  int64_t across;  // bytes to the line that goes with the next key of the tile
  int64_t step;    // bytes to the line of the next step
};

// A block of keys, and one of values with what meets it.
template <class Products>
struct KeyBlock {
  const typename Products::Stored* k;
  int64_t stride, count, headDim;
};

template <class Products>
struct ValueBlock {
  const typename Products::Stored* v;
  int64_t stride, count, valueDim;
  const typename Products::Weight* weights;  // [row][kDecodeBlock]
  const float* rescale;                      // [row]
  const float* units;                        // [row]
  float* o;                                  // [row][channels]
  int64_t channels;

  ValueBlock atRow(int64_t row) const {
    ValueBlock moved = *this;
    moved.weights += row * kDecodeBlock;
    moved.rescale += row;
    moved.units += row;
    moved.o += row * channels;
    return moved;
  }
};

// The scales of the rows of a block of int8, zeros behind them to a whole vector.
struct RowScales {
  float scale[kDecodeBlock];

  RowScales(const int8_t* rows, int64_t stride, int64_t dim, int64_t count) {
    const int8_t* place = rows + int8ScaleOffset(dim);
    for (int64_t key = 0; key < count; ++key, place += stride) memcpy(scale + key, place, sizeof(float));
    for (int64_t key = count; key < roundUp(count, Vec::kWidth); ++key) scale[key] = 0.0f;
  }

  // numbers[row][key] *= the key's scale, and then factor
  void multiply(int64_t rows, int64_t count, float* numbers, float factor = 1.0f) const {
    const Vec after = Vec::broadcast(factor);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t key = 0; key < count; key += Vec::kWidth) {
        float* place = numbers + row * kDecodeBlock + key;
        (Vec::load(place) * Vec::load(scale + key) * after).store(place);
      }
    }
  }
};

// float32 fused multiply-adds; K and V are converted as they are loaded, rows of int8 without their scale.
template <class T>
struct FusedProducts {
  using Stored = T;
  using Query = float;
  using Weight = float;
  using Probability = float;
  using Operand = Vec;
  using Sum = Vec;
  static constexpr bool kHasUnits = false;
  static constexpr bool kIsScaled = sizeof(T) == 1;
  static constexpr float kQueryShift = kIsScaled ? 0.0078125f : 1.0f;  // rows of int8 are 127 times their numbers: no sum overflows
  static constexpr int kStep = Vec::kWidth;
  static constexpr int kValueKeys = 1;
  static constexpr int kGranule = Vec::kWidth;

  static Vec load(const T* p) { return Vec::load(p); }
  static Vec loadPartial(const T* p, int n) { return Vec::loadPartial(p, n); }
  static Vec loadQuery(const float* p) { return Vec::load(p); }
  static Vec multiplyAdd(Vec a, Vec b, Vec sum) { return Vec::fma(a, b, sum); }
  static Vec total(Vec sum) { return sum; }

  // kVecs vectors of channels of one key; of the last of them `partial` channels where that is not 0.
  template <int kVecs>
  static SDPA_ALWAYS_INLINE void loadValues(const T* v, const T*, int partial, Vec (&x)[kVecs]) {
SDPA_UNROLL
    for (int i = 0; i < kVecs; ++i) x[i] = partial ? Vec::loadPartial(v, partial) : Vec::load(v + i * Vec::kWidth);
  }
  static Vec broadcast(const float* weight) { return Vec::broadcast(*weight); }

  // A row of q as the kernels read it: times scale and the shift, zeros behind headDim. Returns the unit that its scores then have.
  template <class Q>
  static float packQuery(const Q* q, int64_t headDim, float scale, int64_t stride, float* out) {
    for (int64_t d = 0; d < headDim; d += kStep, out += stride) {
      (loadUpTo(q + d, headDim - d) * Vec::broadcast(scale) * Vec::broadcast(kQueryShift)).store(out);
    }
    return 1.0f;
  }
  // scores[row][key] of the block, in units of the rows -> scores.
  static void finishScores(const KeyBlock<FusedProducts>& block, const float*, int64_t rows, float* scores) {
    if constexpr (kIsScaled) {
      RowScales(block.k, block.stride, block.headDim, block.count).multiply(rows, block.count, scores, 1.0f / kQueryShift);
    }
  }
  static void storeWeights(Vec weights, float* out) { weights.store(out); }
  // weights[row][key] of the block, which probabilities may already be, and the units of its rows.
  static void prepareWeights(const ValueBlock<FusedProducts>& block, int64_t rows, float* weights, float*, float*) {
    if constexpr (kIsScaled) {
      RowScales(block.v, block.stride, block.valueDim, block.count).multiply(rows, block.count, weights);
    }
  }
  // o as the kernels keep it -> channels in order.
  static void orderChannels(float*, int64_t) {}
};

}  // namespace
}  // namespace sdpa
