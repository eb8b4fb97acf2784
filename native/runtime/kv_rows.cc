#include "runtime/kv_rows.h"

#include <string.h>

#include <utility>

#include "intervals.h"

namespace sdpa {
namespace {

int64_t sinkEndOf(const KvTokens& tokens) { return minimum(tokens.window().sinkTokens, tokens.keptBegin()); }

int64_t keptRows(const KvTokens& tokens) { return sinkEndOf(tokens) + tokens.length() - tokens.keptBegin(); }

// fn(batch, head, begin, end) for the tokens behind rows [first, first + count), in order.
template <class Fn>
void forEachRun(const KvTokens& tokens, int64_t first, int64_t count, Fn fn) {
  const int64_t kept = keptRows(tokens), sinkEnd = sinkEndOf(tokens);
  const int64_t gap = tokens.keptBegin() - sinkEnd;  // that lies between the sinks and the others
  while (count > 0) {
    const int64_t head = first / kept, row = first % kept;
    const bool isSink = row < sinkEnd;
    const int64_t rows = minimum(count, (isSink ? sinkEnd : kept) - row);
    const int64_t begin = isSink ? row : row + gap;
    fn(head / tokens.config().numKvHeads, head % tokens.config().numKvHeads, begin, begin + rows);
    first += rows;
    count -= rows;
  }
}

// Of a row without padding.
int64_t rowBytesOf(const KvCacheConfig& config, bool values) {
  return config.rowBytes(values ? config.valueDim : config.headDim);
}

}  // namespace

int64_t fileRows(const KvTokens& tokens) {
  return tokens.isReserved() ? tokens.config().batch * tokens.config().numKvHeads * keptRows(tokens) : 0;
}

int64_t fileRowBytes(const KvTokens& tokens, bool values) { return rowBytesOf(tokens.config(), values); }

void copyRowsOut(const KvTokens& tokens, bool values, int64_t first, int64_t count, uint8_t* rows) {
  const int64_t bytes = fileRowBytes(tokens, values);
  forEachRun(tokens, first, count, [&](int64_t batch, int64_t head, int64_t begin, int64_t end) {
    tokens.copyRows(values, batch, head, begin, end, rows);
    rows += (end - begin) * bytes;
  });
}

void copyRowsIn(KvTokens& tokens, bool values, int64_t first, int64_t count, const uint8_t* rows) {
  const int64_t bytes = fileRowBytes(tokens, values);
  forEachRun(tokens, first, count, [&](int64_t batch, int64_t head, int64_t begin, int64_t end) {
    tokens.writeRows(values, batch, head, begin, end, rows);
    rows += (end - begin) * bytes;
  });
}

bool KvCacheMemory::extend(int64_t tokens) {
  if (tokens < 0 || tokens > capacity_ - length_ || !commit(length_ + tokens)) return false;
  length_ += tokens;
  return true;
}

void KvCacheMemory::writeRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t count,
                              const uint8_t* rows) {
  const int64_t bytes = rowBytesOf(config_, values);
  const int64_t stride = (values ? v_ : k_).rowBytes;
  uint8_t* place = regionData((values ? heads() : 0) + regionOf(batch, head)) + begin * stride;
  if (stride == bytes) {
    memcpy(place, rows, static_cast<size_t>(count * bytes));
    return;
  }
  for (int64_t i = 0; i < count; ++i) memcpy(place + i * stride, rows + i * bytes, static_cast<size_t>(bytes));
}

// A cache whose window left a gap gets the segments that it would have had: those of the sinks, then one that begins at the
// last multiple of kRunAlign. What lies in them before keptBegin nobody sees.
bool KvTokens::restore(int64_t keptBegin, int64_t length) {
  if (segments_.size() != 1 || length_ != 0 || keptBegin < 0 || keptBegin > length || length > capacity()) return false;
  const int64_t begin = keptBegin / kRunAlign * kRunAlign;
  const int64_t sinkEnd = roundUp(window_.sinkTokens, kRunAlign);
  if (begin > sinkEnd) {
    if (sinkEnd > 0 && !extend(sinkEnd)) return false;
    Segment next = makeSegment(begin, 1);
    if (!next.memory) return false;
    if (sinkEnd == 0) segments_.pop_back();
    segments_.push_back(std::move(next));
    length_ = begin;
  }
  keptBegin_ = keptBegin;
  return extend(length);
}

// Up to `length` tokens, in as many segments as that takes.
bool KvTokens::extend(int64_t length) {
  while (length_ < length) {
    Segment& tail = segments_.back();
    const int64_t room = tail.memory->capacity() - tail.count;
    if (room == 0) {
      Segment next = makeSegment(length_, 1);
      if (!next.memory) return false;
      segments_.push_back(std::move(next));
      continue;
    }
    const int64_t count = minimum(room, length - length_);
    if (!tail.memory->extend(count)) return false;
    tail.count += count;
    length_ += count;
  }
  return true;
}

void KvTokens::writeRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t end, const uint8_t* rows) {
  const int64_t bytes = rowBytesOf(config_, values);
  for (const Segment& segment : segments_) {
    const int64_t from = maximum(begin, segment.begin), to = minimum(end, segment.end());
    if (from >= to) continue;
    segment.memory->writeRows(values, batch, head, from - segment.begin, to - from, rows + (from - begin) * bytes);
  }
}

}  // namespace sdpa
