// How decode multiplies: rows of q with K and V where they lie, in one storage dtype. A Products type says what an operand
// is; decode_scores.h and decode_values.h are written over it.
//
//   Stored, Query, Weight   elements of K and V, of the packed q, of the weights
//   Operand                 a vector of kStep elements of K or q, or of kValueKeys keys' values of channels
//   kGranule                channels that a tile of o comes in: kGranule / width vectors
#pragma once

#include "pack.h"

namespace sdpa {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kLookaheadBytes = 32 << 10;  // how far ahead of use K and V are asked for

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
  bool hasGaps() const { return rowStride != rowBytes; }
};

// Where a register tile takes its lines from.
struct LineCursor {
  const char* next;
  int64_t across;  // bytes to the line that goes with the next key of the tile
  int64_t step;    // bytes to the line of the next step
};

// float32 fused multiply-adds; K and V are converted as they are loaded.
template <class T>
struct FusedProducts {
  using Stored = T;
  using Query = float;
  using Weight = float;
  using Operand = Vec;
  static constexpr int kStep = Vec::kWidth;
  static constexpr int kValueKeys = 1;
  static constexpr int kGranule = Vec::kWidth;

  static Vec load(const T* p) { return Vec::load(p); }
  static Vec loadPartial(const T* p, int n) { return Vec::loadPartial(p, n); }
  static Vec loadQuery(const float* p) { return Vec::load(p); }
  static Vec multiplyAdd(Vec a, Vec b, Vec sum) { return Vec::fma(a, b, sum); }

  // kVecs vectors of channels of one key; of the last of them `partial` channels where that is not 0.
  template <int kVecs>
  static SDPA_ALWAYS_INLINE void loadValues(const T* v, const T*, int partial, Vec (&x)[kVecs]) {
SDPA_UNROLL
    for (int i = 0; i < kVecs; ++i) x[i] = partial ? Vec::loadPartial(v, partial) : Vec::load(v + i * Vec::kWidth);
  }
  static Vec broadcast(const float* weight) { return Vec::broadcast(*weight); }

  // q rows as the kernels read them: times scale, zeros behind headDim.
  template <class Q>
  static void packQuery(const Q* q, int64_t headDim, float scale, int64_t stride, float* out) {
    for (int64_t d = 0; d < headDim; d += kStep, out += stride) {
      (loadUpTo(q + d, headDim - d) * Vec::broadcast(scale)).store(out);
    }
  }
  static void scaleScores(float, int64_t, int64_t, float*) {}  // q is scaled
  static void storeWeights(Vec weights, float* out) { weights.store(out); }
  // o as the kernels keep it -> channels in order.
  static void orderChannels(float*, int64_t) {}
};

}  // namespace
}  // namespace sdpa
