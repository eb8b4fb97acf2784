#include "binding/repeated_step.h"

#include <utility>

#include "intervals.h"

namespace sdpa {
namespace {

// [numSequences, heads, qLen, dim], the sequences beginning at `offset` of each.
Reach reachOfRows(const DecodedProblem& decoded, int64_t Sequence::*offset, int64_t headStride, int64_t rowStride,
                  int64_t dim) {
  Reach reach;
  for (const Sequence& sequence : decoded.sequences) {
    reach.low = minimum(reach.low, sequence.*offset);
    reach.high = maximum(reach.high, sequence.*offset);
  }
  reach.add(decoded.problem.numHeads, headStride);
  reach.add(decoded.sequences[0].qLen, rowStride);
  reach.add(dim, 1);
  return reach;
}

bool isRepeatable(const DecodedProblem& decoded) {
  const Problem& p = decoded.problem;
  bool atEnd = true;
  for (const Sequence& s : decoded.sequences) atEnd = atEnd && s.qLen > 0 && s.queryOffset == s.kvLen - s.qLen;
  return atEnd && !p.lse && !p.mask && !p.bias && !p.alibiSlopes && !p.sinks;
}

const char* addressOf(const Span& span, int64_t element) {
  return static_cast<const char*>(span.data) + element * span.elementBytes;
}

struct Bytes {
  uintptr_t begin, end;
};

Bytes bytesIn(const Span& span, int64_t offset, const Reach& reach) {
  return {reinterpret_cast<uintptr_t>(addressOf(span, offset + reach.low)),
          reinterpret_cast<uintptr_t>(addressOf(span, offset + reach.high + 1))};
}

bool overlap(const Bytes& a, const Bytes& b) { return a.begin < b.end && b.begin < a.end; }

}  // namespace

bool TokenRows::find(const Span& span, const KvCacheConfig& config, int64_t tokens, int64_t dim, KvSource* source) const {
  Reach reach;
  reach.add(config.batch, batchStride);
  reach.add(config.numKvHeads, headStride);
  reach.add(tokens, rowStride);
  reach.add(dim, 1);
  const int64_t bytes = config.elementBytes;
  if (!reach.isWithin(span, bytes, offset)) return false;
  *source = {addressOf(span, offset), batchStride * bytes, headStride * bytes, rowStride * bytes};
  return true;
}

bool TokenLayout::read(const Span& span) {
  const double* values = static_cast<const double*>(span.data);
  if (span.elementBytes != 8 || span.length != 9 || values[0] < 0) return false;
  const auto rows = [&](int i) {
    return TokenRows{wholeOf(values[i], kOpen), wholeOf(values[i + 1], kOpen), wholeOf(values[i + 2], kOpen),
                     wholeOf(values[i + 3], kOpen)};
  };
  tokens = wholeOf(values[0], kOpen);
  k = rows(1);
  v = rows(5);
  return true;
}

void RepeatedStep::keep(DecodedProblem&& decoded, const TokenLayout& layout) {
  layout_ = layout;
  if (!isRepeatable(decoded)) layout_.tokens = 0;
  if (layout_.tokens == 0) return;
  decoded_ = std::move(decoded);
  Problem& p = decoded_.problem;
  p.sequences = decoded_.sequences.data();
  const Sequence first = decoded_.sequences[0];
  for (Sequence& sequence : decoded_.sequences) {  // from here on they count from the first element of the tensor
    sequence.qOffset -= first.qOffset;
    sequence.outOffset -= first.outOffset;
  }
  q_ = reachOfRows(decoded_, &Sequence::qOffset, p.qHeadStride, p.qRowStride, p.headDim);
  out_ = reachOfRows(decoded_, &Sequence::outOffset, p.outHeadStride, p.outRowStride, p.valueDim);
}

bool RepeatedStep::moveTo(const Span (&spans)[4], const int64_t (&offsets)[4], const KvCacheConfig& config) {
  const auto& [q, k, v, out] = spans;
  Problem& p = decoded_.problem;
  const int64_t qBytes = bytesOf(p.qDType);
  if (!q_.isWithin(q, qBytes, offsets[0]) || !out_.isWithin(out, qBytes, offsets[3]) ||
      overlap(bytesIn(q, offsets[0], q_), bytesIn(out, offsets[3], out_))) {
    return false;
  }
  layout_.k.offset = offsets[1];
  layout_.v.offset = offsets[2];
  if (!layout_.k.find(k, config, layout_.tokens, p.headDim, &k_) ||
      !layout_.v.find(v, config, layout_.tokens, p.valueDim, &v_)) {
    return false;
  }
  p.q = addressOf(q, offsets[0]);
  p.out = const_cast<char*>(addressOf(out, offsets[3]));
  return true;
}

DecodedProblem& RepeatedStep::over(int64_t kvLen) {
  for (Sequence& sequence : decoded_.sequences) {
    sequence.kvLen = kvLen;
    sequence.queryOffset = kvLen - sequence.qLen;
  }
  return decoded_;
}

}  // namespace sdpa
