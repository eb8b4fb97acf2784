// From JavaScript values to a checked Problem. The meaning was validated in lib/describe-attention.ts; what is checked here
// is memory: that the last element a kernel can reach lies within its typed array.
#pragma once

#include <napi.h>

#include <vector>

#include "intervals.h"
#include "kernel_table.h"
#include "wire_numbers.h"

namespace sdpa {

// A typed array, or nothing (null, undefined).
struct Span {
  void* data = nullptr;
  int64_t length = 0;  // elements; 0 for a detached buffer
  int64_t elementBytes = 0;
  bool given = false;
  int64_t first = INT64_MAX, last = -1;  // of the elements that a call uses, once its problem is attached

  static Span from(Napi::Env env, napi_value value);
};

// How far a strided block of elements reaches from its first one.
struct Reach : Extent {
  // Whether all of it lies in the span when its first element is at `offset`.
  bool isWithin(const Span& span, int64_t elementBytes, int64_t offset) const {
    return span.given && span.elementBytes == elementBytes && Extent::isWithin(span.length, offset);
  }
  // As isWithin, and the span takes note of it.
  bool uses(Span& span, int64_t elementBytes, int64_t offset) const {
    if (!isWithin(span, elementBytes, offset)) return false;
    span.first = minimum(span.first, offset + low);
    span.last = maximum(span.last, offset + high);
    return true;
  }
};

// Of an element of a tensor, from which an int8 cache is made.
inline int64_t bytesOf(DType dtype) { return dtype == kFloat32 || dtype == kInt8 ? 4 : 2; }

// The typed arrays of one call, in the order they cross.
struct TensorSpans {
  Span q, k, v, out, lse, mask, bias, alibiSlopes, sinks;

  // The nine arguments from info[first] on.
  static TensorSpans from(const Napi::CallbackInfo& info, size_t first);
};

struct DecodedProblem {
  Problem problem{};
  std::vector<Sequence> sequences;
  std::vector<KeyRun> runs;  // of all sequences, where keys and values don't lie together

  // Reads the flat array; false with a pending JavaScript exception where it is malformed.
  bool decode(Napi::Env env, const Span& fields);
  // Points the problem at the spans after checking their extents; k and v are checked only where they are given.
  bool attach(Napi::Env env, TensorSpans& spans);
};

}  // namespace sdpa
