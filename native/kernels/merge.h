// Folds the partial results of the chunks of one KV head into out and lse: the associative merge of softmax states
// (Flash-Decoding; FlashInfer §2.2), in chunk order.
#pragma once

#include "../kernel_table.h"
#include "online_softmax.h"
#include "scores.h"

namespace sdpa {
namespace {

inline float scalarExp2(float x) {
  float lanes[Vec::kWidth];
  exp2(Vec::broadcast(x)).store(lanes);
  return lanes[0];
}

// partials: numChunks pieces as DecodeTask::partial, `stride` floats apart. A sink logit joins as a chunk without values.
template <class T>
inline void mergeRow(const float* partials, int64_t numChunks, int64_t stride, int64_t rows, int64_t row,
                     int64_t valueDim, float sink, T* out, float* lse) {
  constexpr int64_t W = Vec::kWidth;
  float m = sink;
  for (int64_t c = 0; c < numChunks; ++c) {
    const float chunkMax = partials[c * stride + row];
    m = chunkMax > m ? chunkMax : m;
  }
  const float origin = m == kNegativeInfinity ? 0.0f : m * kLog2E;
  float l = sink == kNegativeInfinity ? 0.0f : scalarExp2(sink * kLog2E - origin);
  for (int64_t c = 0; c < numChunks; ++c) {
    l += partials[c * stride + rows + row] * scalarExp2(partials[c * stride + row] * kLog2E - origin);
  }
  for (int64_t d = 0; d < valueDim; d += W) {
    const int64_t n = minimum(W, valueDim - d);
    Vec sum = Vec::zero();
    for (int64_t c = 0; c < numChunks; ++c) {
      const float* o = partials + c * stride + 2 * rows + row * valueDim + d;
      const Vec factor = exp2(Vec::broadcast(partials[c * stride + row] * kLog2E - origin));
      sum = Vec::fma(loadUpTo(o, n), factor, sum);
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
