// Causality, windows, lengths and sink tokens as data: each query row sees [begin, end) and [0, sinkEnd).
// Shared by the kernels and by the schedule, hence without a Vec and in an anonymous namespace.
#pragma once

#include "problem.h"

namespace sdpa {
namespace {

inline int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }

struct KeyInterval {
  int64_t begin, end;  // begin <= end
  int64_t sinkEnd;     // <= end
};

// Keys that query row i of a sequence sees.
inline KeyInterval visibleKeys(const Problem& problem, const Sequence& sequence, int64_t i) {
  const int64_t position = sequence.queryOffset + i;
  int64_t end = sequence.kvLen;
  if (problem.windowRight < kOpen) end = minimum(end, maximum(0, position + problem.windowRight + 1));
  int64_t begin = 0;
  if (problem.windowLeft < kOpen) begin = minimum(end, maximum(0, position - problem.windowLeft));
  begin = minimum(end, maximum(begin, sequence.keptBegin));
  return {begin, end, minimum(problem.sinkTokens, end)};
}

// The hull over query rows [first, last]: both bounds of a row's interval grow with the row.
struct KeyHull {
  int64_t minBegin, maxBegin, minEnd, maxEnd;
  int64_t minSinkEnd, maxSinkEnd;

  // Keys of [begin, end) that some row may see, as one interval.
  void clip(int64_t& begin, int64_t& end) const {
    end = minimum(end, maxEnd);
    if (begin >= maxSinkEnd) begin = maximum(begin, minBegin);
  }
  // All keys that some row may see lie in [firstKey, lastKey), and blocks of keys that hold these two are looked at.
  int64_t firstKey() const { return maxSinkEnd > 0 ? 0 : minBegin; }
  int64_t lastKey() const { return minBegin < maxEnd ? maxEnd : maxSinkEnd; }
  bool empty() const { return firstKey() >= lastKey(); }
  // Whether every row sees every key of [begin, end).
  bool full(int64_t begin, int64_t end) const {
    return (begin >= maxBegin && end <= minEnd) || end <= minSinkEnd;
  }
};

inline KeyHull hullOf(const Problem& problem, const Sequence& sequence, int64_t first, int64_t last) {
  const KeyInterval low = visibleKeys(problem, sequence, first);
  const KeyInterval high = visibleKeys(problem, sequence, last);
  return {low.begin, high.begin, low.end, high.end, low.sinkEnd, high.sinkEnd};
}

}  // namespace
}  // namespace sdpa
