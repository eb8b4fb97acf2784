// The attention problem as it crosses from TypeScript: one flat array of doubles, whose field names the loader
// compares with its own list, so that a stale binary fails at load and never silently.
// The C++ mirror of lib/problem.ts; it includes nothing of ours.
#pragma once

#include <stdint.h>

namespace sdpa {

// One row a scalar of the problem. Order is the wire order. Strides count elements; lengths count tokens.
#define SDPA_PROBLEM_FIELDS(X) \
  X(numSequences)              \
  X(numHeads)                  \
  X(numKvHeads)                \
  X(headDim)                   \
  X(valueDim)                  \
  X(scale)                     \
  X(softcap)                   \
  X(windowLeft)                \
  X(windowRight)               \
  X(sinkTokens)                \
  X(threads)                   \
  X(precision)                 \
  X(qDType)                    \
  X(kvDType)                   \
  X(biasDType)                 \
  X(qHeadStride)               \
  X(qRowStride)                \
  X(kHeadStride)               \
  X(kRowStride)                \
  X(vHeadStride)               \
  X(vRowStride)                \
  X(outHeadStride)             \
  X(outRowStride)              \
  X(lseHeadStride)             \
  X(lseRowStride)              \
  X(maskHeadStride)            \
  X(maskRowStride)             \
  X(maskKeyStride)             \
  X(biasHeadStride)            \
  X(biasRowStride)             \
  X(biasKeyStride)             \
  X(alibiHeadStride)

// One row a field of each sequence; numSequences such rows follow the scalars. *Offset is the element index of
// the sequence's first row (head 0) in its typed array. The mask's first column belongs to key maskBegin; it does not speak
// of those before.
#define SDPA_SEQUENCE_FIELDS(X) \
  X(qLen)                       \
  X(kvLen)                      \
  X(queryOffset)                \
  X(qOffset)                    \
  X(kOffset)                    \
  X(vOffset)                    \
  X(outOffset)                  \
  X(lseOffset)                  \
  X(maskOffset)                 \
  X(maskBegin)                  \
  X(biasOffset)                 \
  X(alibiOffset)

enum DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3 };  // kInt8: rows of a cache (int8_row.h)

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Rows [begin, end) of a sequence's keys and values that lie together. k and v point at row `begin` of head 0; begin
// is a multiple of kRunAlign.
struct KeyRun {
  int64_t begin, end;
  const void *k, *v;
  int64_t kHeadStride, vHeadStride;
};
constexpr int64_t kRunAlign = 64;  // so that no block of a kernel's inner loop straddles two runs

// Softmax states of a sequence's rows over keys that are not among its own: from row `rowBegin` on of `count` partials
// (DecodeTask::partial) of `rows` rows each, `stride` floats apart. Those of the next KV head lie headStride further.
struct SharedStates {
  float* first;
  int64_t count, stride, headStride, rows, rowBegin;
};

// One batch entry or one ragged sequence.
struct Sequence {
#define SDPA_DECLARE(name) int64_t name;
  SDPA_SEQUENCE_FIELDS(SDPA_DECLARE)
#undef SDPA_DECLARE
  const KeyRun* runs;  // in order, numRuns of them; null: all rows lie together, at k and v of the problem
  int64_t numRuns;
  int64_t keptBegin;   // keys of [sinkTokens, keptBegin) are gone, and nobody sees them
  const SharedStates* shared;  // numShared of them, which join when its chunks of keys are merged
  int64_t numShared;
};

// What the kernels see: decoded fields and pointers whose extents have been checked.
struct Problem {
  int64_t numSequences, numHeads, numKvHeads, groupSize, headDim, valueDim;
  float scale, softcap;             // softcap 0 = none
  int64_t windowLeft, windowRight;  // kOpen = no bound; causal is windowRight <= 0
  int64_t sinkTokens;
  int32_t threads, precision;
  DType qDType, kvDType, biasDType;
  const Sequence* sequences;

  const void *q, *k, *v, *bias;
  void* out;
  float* lse;  // null when not wanted
  const uint8_t* mask;
  const float *alibiSlopes, *sinks;

  int64_t qHeadStride, qRowStride, kHeadStride, kRowStride, vHeadStride, vRowStride;
  int64_t outHeadStride, outRowStride, lseHeadStride, lseRowStride;
  int64_t maskHeadStride, maskRowStride, maskKeyStride, biasHeadStride, biasRowStride, biasKeyStride;
  int64_t alibiHeadStride;

  const volatile int32_t* cancelled;  // checked between tiles and key blocks; may be null
};

constexpr int64_t kOpen = int64_t{1} << 52;  // a window bound that no position reaches

}  // namespace sdpa
