#include "binding/arguments.h"

#include <stdio.h>

#include "intervals.h"

namespace sdpa {
namespace {

#define SDPA_COUNT(name) +1
constexpr int64_t kNumProblemFields = 0 SDPA_PROBLEM_FIELDS(SDPA_COUNT);
constexpr int64_t kNumSequenceFields = 0 SDPA_SEQUENCE_FIELDS(SDPA_COUNT);
#undef SDPA_COUNT

bool fail(Napi::Env env, const char* message) {
  Napi::RangeError::New(env, message).ThrowAsJavaScriptException();
  return false;
}

// The scalars of the wire format, by name.
struct WireProblem {
#define SDPA_DECLARE(name) double name;
  SDPA_PROBLEM_FIELDS(SDPA_DECLARE)
#undef SDPA_DECLARE
};

// JavaScript's Infinity marks an open bound; everything else ought to be a whole number below 2^53.
int64_t whole(double x) { return wholeOf(x, kOpen); }

// False for what is no dtype of a tensor.
bool readDType(double code, DType* dtype) {
  for (DType known : {kFloat32, kFloat16, kBFloat16}) {
    *dtype = known;
    if (code == static_cast<double>(known)) return true;
  }
  return false;
}

Reach reachOf(int64_t heads, int64_t headStride, int64_t rows, int64_t rowStride, int64_t width, int64_t step) {
  Reach reach;
  reach.add(heads, headStride);
  reach.add(rows, rowStride);
  reach.add(width, step);
  return reach;
}

bool failExtent(Napi::Env env, const char* name, const Span& span) {
  char message[200];
  snprintf(message, sizeof message,
           "the memory of %s does not hold the tensor that was described: its typed array has %lld elements%s", name,
           static_cast<long long>(span.length), span.length == 0 ? " (was its buffer detached or transferred?)" : "");
  return fail(env, message);
}

}  // namespace

Span Span::from(Napi::Env env, napi_value value) {
  Span span;
  napi_typedarray_type type;
  size_t length = 0;
  // Refuses what is no typed array.
  if (napi_get_typedarray_info(env, value, &type, &length, &span.data, nullptr, nullptr) != napi_ok) return span;
  span.given = true;
  span.length = static_cast<int64_t>(length);
  switch (type) {
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      span.elementBytes = 8;
      break;
    case napi_float32_array:
    case napi_int32_array:
    case napi_uint32_array:
      span.elementBytes = 4;
      break;
    case napi_int16_array:
    case napi_uint16_array:
      span.elementBytes = 2;
      break;
    default:
      span.elementBytes = 1;
  }
  return span;
}

TensorSpans TensorSpans::from(const Napi::CallbackInfo& info, size_t first) {
  const auto span = [&](size_t i) { return Span::from(info.Env(), info[first + i]); };
  return {span(0), span(1), span(2), span(3), span(4), span(5), span(6), span(7), span(8)};
}

bool DecodedProblem::decode(Napi::Env env, const Span& fields) {
  if (fields.elementBytes != 8 || fields.length < kNumProblemFields) return fail(env, "malformed problem");
  const double* values = static_cast<const double*>(fields.data);
  WireProblem wire;
  int64_t i = 0;
#define SDPA_READ(name) wire.name = values[i++];
  SDPA_PROBLEM_FIELDS(SDPA_READ)
#undef SDPA_READ
  problem.scale = static_cast<float>(wire.scale);
  problem.softcap = static_cast<float>(wire.softcap);
  problem.threads = static_cast<int32_t>(wholeOf(wire.threads, INT32_MAX));
  problem.precision = static_cast<int32_t>(wholeOf(wire.precision, 2));
  if (!readDType(wire.qDType, &problem.qDType) || !readDType(wire.kvDType, &problem.kvDType) ||
      !readDType(wire.biasDType, &problem.biasDType)) {
    return fail(env, "malformed problem");
  }
#define SDPA_WHOLE(name) problem.name = whole(wire.name);
  SDPA_WHOLE(numSequences) SDPA_WHOLE(numHeads) SDPA_WHOLE(numKvHeads) SDPA_WHOLE(headDim) SDPA_WHOLE(valueDim)
  SDPA_WHOLE(windowLeft) SDPA_WHOLE(windowRight) SDPA_WHOLE(sinkTokens)
  SDPA_WHOLE(qHeadStride) SDPA_WHOLE(qRowStride) SDPA_WHOLE(kHeadStride) SDPA_WHOLE(kRowStride)
  SDPA_WHOLE(vHeadStride) SDPA_WHOLE(vRowStride) SDPA_WHOLE(outHeadStride) SDPA_WHOLE(outRowStride)
  SDPA_WHOLE(lseHeadStride) SDPA_WHOLE(lseRowStride) SDPA_WHOLE(maskHeadStride) SDPA_WHOLE(maskRowStride)
  SDPA_WHOLE(maskKeyStride) SDPA_WHOLE(biasHeadStride) SDPA_WHOLE(biasRowStride) SDPA_WHOLE(biasKeyStride)
  SDPA_WHOLE(alibiHeadStride)
#undef SDPA_WHOLE
  // Kernels read one row of keys after another, or one for all; of a single key any stride may be told.
  problem.maskKeyStride = problem.maskKeyStride != 0;
  problem.biasKeyStride = problem.biasKeyStride != 0;
  if (problem.numSequences < 0 || problem.numHeads < 1 || problem.numKvHeads < 1 || problem.headDim < 1 || problem.valueDim < 0 ||
      problem.numHeads % problem.numKvHeads != 0 ||
      (fields.length - kNumProblemFields) / kNumSequenceFields != problem.numSequences) {
    return fail(env, "malformed problem");
  }
  problem.groupSize = problem.numHeads / problem.numKvHeads;
  sequences.resize(static_cast<size_t>(problem.numSequences));
  for (Sequence& sequence : sequences) {
#define SDPA_READ(name) sequence.name = whole(values[i++]);
    SDPA_SEQUENCE_FIELDS(SDPA_READ)
#undef SDPA_READ
    if (sequence.qLen < 0 || sequence.kvLen < 0 || sequence.maskBegin < 0) return fail(env, "malformed problem");
  }
  problem.sequences = sequences.data();
  return true;
}

bool DecodedProblem::attach(Napi::Env env, TensorSpans& spans) {
  Problem& p = problem;
  // Rows of no channels may have no memory, and to a null pointer nothing may be added.
  if (p.valueDim == 0) {
    p.vHeadStride = p.vRowStride = p.outHeadStride = p.outRowStride = 0;
    for (Sequence& s : sequences) s.vOffset = s.outOffset = 0;
  }
  const int64_t qBytes = bytesOf(p.qDType), kvBytes = bytesOf(p.kvDType);
  for (const Sequence& s : sequences) {
    if (s.qLen == 0) continue;
    const auto rows = [&](int64_t headStride, int64_t rowStride, int64_t width) {
      return reachOf(p.numHeads, headStride, s.qLen, rowStride, width, 1);
    };
    if (!rows(p.qHeadStride, p.qRowStride, p.headDim).uses(spans.q, qBytes, s.qOffset)) {
      return failExtent(env, "q", spans.q);
    }
    if (p.valueDim > 0 && !rows(p.outHeadStride, p.outRowStride, p.valueDim).uses(spans.out, qBytes, s.outOffset)) {
      return failExtent(env, "out", spans.out);
    }
    if (spans.lse.given && !rows(p.lseHeadStride, p.lseRowStride, 1).uses(spans.lse, 4, s.lseOffset)) {
      return failExtent(env, "lse", spans.lse);
    }
    if (spans.alibiSlopes.given &&
        !reachOf(p.numHeads, p.alibiHeadStride, 1, 0, 1, 0).uses(spans.alibiSlopes, 4, s.alibiOffset)) {
      return failExtent(env, "alibiSlopes", spans.alibiSlopes);
    }
    if (s.kvLen == 0) continue;
    const Reach kReach = reachOf(p.numKvHeads, p.kHeadStride, s.kvLen, p.kRowStride, p.headDim, 1);
    if (spans.k.given && !kReach.uses(spans.k, kvBytes, s.kOffset)) return failExtent(env, "k", spans.k);
    const Reach vReach = reachOf(p.numKvHeads, p.vHeadStride, s.kvLen, p.vRowStride, maximum(p.valueDim, 1), 1);
    if (spans.v.given && p.valueDim > 0 && !vReach.uses(spans.v, kvBytes, s.vOffset)) {
      return failExtent(env, "v", spans.v);
    }
    const Reach maskReach = reachOf(p.numHeads, p.maskHeadStride, s.qLen, p.maskRowStride, s.kvLen - s.maskBegin, p.maskKeyStride);
    if (spans.mask.given && s.maskBegin < s.kvLen && !maskReach.uses(spans.mask, 1, s.maskOffset)) return failExtent(env, "mask", spans.mask);
    const Reach biasReach = reachOf(p.numHeads, p.biasHeadStride, s.qLen, p.biasRowStride, s.kvLen, p.biasKeyStride);
    if (spans.bias.given && !biasReach.uses(spans.bias, bytesOf(p.biasDType), s.biasOffset)) {
      return failExtent(env, "bias", spans.bias);
    }
  }
  const Reach sinksReach = reachOf(p.numHeads, 1, 1, 0, 1, 0);
  if (spans.sinks.given && !sinksReach.uses(spans.sinks, 4, 0)) return failExtent(env, "sinks", spans.sinks);
  p.q = spans.q.data;
  p.k = spans.k.data;
  p.v = spans.v.data;
  p.out = spans.out.data;
  p.lse = static_cast<float*>(spans.lse.data);
  p.mask = static_cast<const uint8_t*>(spans.mask.data);
  p.bias = spans.bias.data;
  p.alibiSlopes = static_cast<const float*>(spans.alibiSlopes.data);
  p.sinks = static_cast<const float*>(spans.sinks.data);
  return true;
}

}  // namespace sdpa
