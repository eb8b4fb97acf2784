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

// partials: numChunks pieces as DecodeTask::partial, `stride` floats apart; each piece's m is overwritten by its factor.
// A sink logit joins as a chunk without values.
template <class T>
inline void mergeRow(float* partials, int64_t numChunks, int64_t stride, int64_t rows, int64_t row, int64_t valueDim,
                     float sink, T* out, float* lse) {
  constexpr int64_t W = Vec::kWidth;
  float m = sink;
  for (int64_t c = 0; c < numChunks; ++c) {
    const float chunkMax = partials[c * stride + row];
    m = chunkMax > m ? chunkMax : m;
  }
  const float origin = m == kNegativeInfinity ? 0.0f : m;
  float l = sink == kNegativeInfinity ? 0.0f : scalarExp(sink - origin);
  for (int64_t c = 0; c < numChunks; ++c) {
    float* factor = partials + c * stride + row;
    *factor = scalarExp(*factor - origin);
    l += factor[rows] * *factor;
  }
  for (int64_t d = 0; d < valueDim; d += W) {
    const int64_t n = minimum(W, valueDim - d);
    Vec sum = Vec::zero();
    for (int64_t c = 0; c < numChunks; ++c) {
      const float* o = partials + c * stride + 2 * rows + row * valueDim + d;
      sum = Vec::fma(loadUpTo(o, n), Vec::broadcast(partials[c * stride + row]), sum);
    }
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
    mergeRow(first.partial, numChunks, partialFloats, rows, r, problem.valueDim, sink, out, lse);
  }
}

inline void decodeMerge(const Problem& problem, const DecodeTask& first, int64_t numChunks, int64_t partialFloats) {
  if (problem.qDType == kFloat32) mergeHead<float>(problem, first, numChunks, partialFloats);
  if (problem.qDType == kFloat16) mergeHead<Float16>(problem, first, numChunks, partialFloats);
  if (problem.qDType == kBFloat16) mergeHead<BFloat16>(problem, first, numChunks, partialFloats);
}

}  // namespace
}  // namespace sdpa
