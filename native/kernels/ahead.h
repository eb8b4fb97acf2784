// Memory that the next query tile touches, asked for line by line while this one computes. In a burst, prefetches fill
// the miss buffers and stall the loads behind them; spread over the register tiles of a product they cost nothing.
#pragma once

#include "tile.h"

namespace sdpa {
namespace {

class Ahead {
 public:
  void add(const void* memory, int64_t bytes) {
    if (bytes <= 0) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory) / kLine * kLine;
    const uintptr_t end = reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(bytes);
    const int64_t lines = (static_cast<int64_t>(end - begin) + kLine - 1) / kLine;
    const char* from = reinterpret_cast<const char*>(begin);
    if (count_ == 0 || spans_[count_ - 1].end != from) {
      if (count_ == kMaxSpans) return;
      spans_[count_++].begin = from;
    }
    spans_[count_ - 1].end = from + lines * kLine;
    lines_ += lines;
  }

  // step() will be called so often.
  void spread(int64_t steps) { linesPerStep_ = steps > 0 ? (lines_ + steps - 1) / steps : 0; }

  void step() {
    for (int64_t i = 0; i < linesPerStep_ && span_ < count_; ++i) {
      Span& span = spans_[span_];
      SDPA_PREFETCH_READ(span.begin);
      span.begin += kLine;
      if (span.begin == span.end) ++span_;
    }
  }

 private:
  struct Span {
    const char *begin, *end;
  };
  static constexpr int64_t kLine = 64;
  static constexpr int kMaxSpans = 2 * kTileRows + 2;  // rows of q and of out, qT, oT

  Span spans_[kMaxSpans];
  int count_ = 0, span_ = 0;
  int64_t lines_ = 0, linesPerStep_ = 0;
};

}  // namespace
}  // namespace sdpa
