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
// the sequence's first row (head 0) in its typed array.
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
  X(biasOffset)                 \
  X(alibiOffset)

}  // namespace sdpa
