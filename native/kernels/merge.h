// Folds the partial results of the chunks of one KV head into out and lse: the associative merge of softmax states
// (Flash-Decoding; FlashInfer §2.2), in chunk order.
#pragma once

#include "../kernel_table.h"
#include "online_softmax.h"
#include "scores.h"

namespace sdpa {
namespace {

inline float scalarExp(float x) {
  float lanes[Vec::kWidth];
  exp(Vec::broadcast(x)).store(lanes);
  return lanes[0];
}

// One row of `count` partials: m of the c-th at m + c * stride, l `lOffset` and o `oOffset` floats behind it.
struct RowStates {
  float* m;
  int64_t count, stride, lOffset, oOffset;
};

inline RowStates rowStates(float* partials, int64_t count, int64_t stride, int64_t rows, int64_t row, int64_t valueDim) {
  return {partials + row, count, stride, rows, 2 * rows - row + row * valueDim};
}

// The states of one row: those over shared keys, then those of its own chunks.
struct AllStates {
  const Sequence& sequence;
  int64_t kvHead, row, valueDim;
  RowStates own;

  // fn(m, l, o) for each.
  template <class Fn>
  SDPA_ALWAYS_INLINE void forEach(Fn fn) const {
    for (int64_t i = 0; i < sequence.numShared; ++i) {
      const SharedStates& s = sequence.shared[i];
      forEachOf(rowStates(s.first + kvHead * s.headStride, s.count, s.stride, s.rows, s.rowBegin + row, valueDim), fn);
    }
    forEachOf(own, fn);
  }

  template <class Fn>
  SDPA_ALWAYS_INLINE static void forEachOf(const RowStates& states, Fn fn) {
    for (int64_t c = 0; c < states.count; ++c) {
      float* m = states.m + c * states.stride;
      fn(m, m + states.lOffset, m + states.oOffset);
    }
  }
};

// Each state's m is overwritten by its factor. A sink logit joins as a chunk without values.
template <class T>
inline void mergeRow(const AllStates& states, float sink, T* out, float* lse) {
  constexpr int64_t W = Vec::kWidth;
  float m = sink;
  states.forEach([&](const float* chunkMax, const float*, const float*) { m = *chunkMax > m ? *chunkMax : m; });
  const float origin = m == kNegativeInfinity ? 0.0f : m;
  float l = sink == kNegativeInfinity ? 0.0f : scalarExp(sink - origin);
  states.forEach([&](float* factor, const float* chunkSum, const float*) {
    *factor = scalarExp(*factor - origin);
    l += *chunkSum * *factor;
  });
  for (int64_t d = 0; d < states.valueDim; d += W) {
    const int64_t n = minimum(W, states.valueDim - d);
    Vec sum = Vec::zero();
    states.forEach([&](const float* factor, const float*, const float* o) {
      sum = Vec::fma(loadUpTo(o + d, n), Vec::broadcast(*factor), sum);
    });
    storeUpTo(l == 0.0f ? Vec::zero() : sum / Vec::broadcast(l), n, out + d);
  }
  if (lse) *lse = logSumExp(m, l);
}

template <class T>
inline void mergeHead(const Problem& problem, const DecodeTask& first, int64_t numChunks, int64_t partialFloats) {
  const Sequence& sequence = problem.sequences[first.sequence];
  const int64_t rows = sequence.qLen * problem.groupSize;
  for (int64_t r = 0; r < rows; ++r) {
    const RowIndex row = rowIndex(problem, first.kvHead, r);
    T* out = static_cast<T*>(problem.out) + sequence.outOffset + row.head * problem.outHeadStride +
             row.query * problem.outRowStride;
    float* lse = problem.lse ? problem.lse + sequence.lseOffset + row.head * problem.lseHeadStride +
                                   row.query * problem.lseRowStride
                             : nullptr;
    const float sink = problem.sinks ? problem.sinks[row.head] : kNegativeInfinity;
    const RowStates own = rowStates(first.partial, numChunks, partialFloats, rows, r, problem.valueDim);
    mergeRow(AllStates{sequence, first.kvHead, r, problem.valueDim, own}, sink, out, lse);
  }
}

inline void decodeMerge(const Problem& problem, const DecodeTask& first, int64_t numChunks, int64_t partialFloats) {
  if (problem.qDType == kFloat32) mergeHead<float>(problem, first, numChunks, partialFloats);
  if (problem.qDType == kFloat16) mergeHead<Float16>(problem, first, numChunks, partialFloats);
  if (problem.qDType == kBFloat16) mergeHead<BFloat16>(problem, first, numChunks, partialFloats);
}

}  // namespace
}  // namespace sdpa
