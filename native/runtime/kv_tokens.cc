// Segments
// ========
//
// A plain cache is one segment, as large as it may become (kv_cache.cc), and stays one: it costs what contiguous memory
// costs. A segment is append-only: nobody overwrites a row that another cache may see.
//
// - fork copies the list, not the rows. The first of the sharers to append goes on in place, behind what the others see;
//   the others, and whoever truncated below the end of what is there, start a segment of their own.
// - A new segment begins at a multiple of kRunAlign tokens, so that no block of a kernel straddles two: up to 63 tokens
//   are copied into it.
// - A window keeps segments of an eighth of its size. One that lies wholly before the window is recycled as the next:
//   no token moves, memory stays constant, and positions stay absolute. The tokens of the sinks have segments of their own.
#include "runtime/kv_tokens.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <utility>

#include "intervals.h"

namespace sdpa {
namespace {

constexpr int64_t kMinWindowSegment = 256;

std::atomic<int64_t> numCaches{0};

KvSource rowsOf(const KvCacheMemory& memory, bool values, int64_t row) {
  const int64_t rowBytes = values ? memory.vRowStrideBytes() : memory.kRowStrideBytes();
  const int64_t headBytes = values ? memory.vHeadStrideBytes() : memory.kHeadStrideBytes();
  const uint8_t* first = values ? memory.vRow(0, 0) : memory.kRow(0, 0);
  return {first + row * rowBytes, headBytes * memory.config().numKvHeads, headBytes, rowBytes, true};
}

KvSource from(const KvSource& source, int64_t row) {
  KvSource rest = source;
  rest.data = static_cast<const uint8_t*>(source.data) + row * source.rowStrideBytes;
  return rest;
}

}  // namespace

KvMemoryInfo kvMemoryInfo() {
  const KvMemoryBytes bytes = kvMemoryBytes();
  return {numCaches.load(std::memory_order_relaxed), bytes.now, bytes.peak};
}

// Tokens of a segment that begins there.
int64_t KvTokens::segmentTokens(int64_t begin) const {
  if (!hasWindow()) return config_.maxLength == 0 ? 0 : config_.maxLength - begin;
  if (begin < window_.sinkTokens) return roundUp(window_.sinkTokens, kRunAlign);
  return maximum(kMinWindowSegment, roundUp(window_.tokens / 8, kRunAlign));
}

// For one segment more, which then goes into the list without a failure. 0 tokens: as many as memory holds.
std::shared_ptr<KvCacheMemory> KvTokens::makeMemory(int64_t tokens) try {
  segments_.reserve(segments_.size() + 1);
  if (spare_ && spare_->capacity() == tokens) {
    spare_->truncate(0);
    return std::move(spare_);
  }
  std::shared_ptr<KvCacheMemory> memory(new (std::nothrow) KvCacheMemory);
  KvCacheConfig config = config_;
  config.maxLength = tokens;
  if (!memory || !memory->reserve(config)) return nullptr;
  return memory;
} catch (const std::exception&) {
  return nullptr;
}

bool KvTokens::reserve(const KvCacheConfig& config, const KvWindow& window) {
  release();
  config_ = config;
  window_ = window;
  std::shared_ptr<KvCacheMemory> memory = makeMemory(segmentTokens(0));
  if (!memory) return false;
  segments_.push_back({std::move(memory), 0, 0});
  numCaches.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void KvTokens::forkFrom(const KvTokens& other) {
  release();
  config_ = other.config_;
  window_ = other.window_;
  // Not by assignment, which asks for a symbol of newer C++ libraries than scripts/check-abi.mjs allows.
  segments_.reserve(other.segments_.size());
  for (const Segment& segment : other.segments_) segments_.push_back(segment);
  length_ = other.length_;
  keptBegin_ = other.keptBegin_;
  numCaches.fetch_add(1, std::memory_order_relaxed);
}

void KvTokens::release() {
  if (segments_.empty()) return;
  segments_.clear();
  spare_.reset();
  length_ = keptBegin_ = 0;
  numCaches.fetch_sub(1, std::memory_order_relaxed);
}

int64_t KvTokens::capacity() const {
  if (segments_.empty()) return 0;
  if (config_.maxLength > 0) return config_.maxLength;
  if (hasWindow()) return kOpen;
  const Segment& tail = segments_.back();
  return tail.begin + tail.memory->capacity();
}

int64_t KvTokens::byteLength() const {
  int64_t bytes = spare_ ? spare_->byteLength() : 0;
  for (const Segment& segment : segments_) bytes += segment.memory->byteLength();
  return bytes;
}

int64_t KvTokens::shareOfBytes() const {
  int64_t bytes = spare_ ? spare_->byteLength() : 0;
  for (const Segment& segment : segments_) bytes += segment.memory->byteLength() / segment.memory.use_count();
  return bytes;
}

// Whether rows may be written behind those of this cache: nobody else's are there.
bool KvTokens::canGrow(const Segment& tail) const {
  return tail.memory.use_count() == 1 || tail.memory->length() == tail.count;
}

// A segment of its own for the tokens from the last multiple of kRunAlign before `position` on, those before `position`
// copied into it; with room for at least `more` behind them. Its memory is null if there is none.
KvTokens::Segment KvTokens::makeSegment(int64_t position, int64_t more) {
  const int64_t begin = position / kRunAlign * kRunAlign, rest = position - begin;
  int64_t tokens = segmentTokens(begin);
  if (hasWindow()) tokens = maximum(tokens, roundUp(rest + more, kRunAlign));
  Segment made{makeMemory(tokens), begin, rest};
  if (!made.memory || rest == 0) return made;
  for (const Segment& segment : segments_) {
    if (segment.begin > begin || segment.end() <= begin) continue;
    const int64_t row = begin - segment.begin;
    if (!made.memory->append(rowsOf(*segment.memory, false, row), rowsOf(*segment.memory, true, row), rest)) {
      made.memory.reset();
    }
  }
  return made;
}

// Forgets the tokens from the segment's first on, and goes on with it.
void KvTokens::continueWith(Segment segment) {
  const int64_t length = segment.end();
  truncate(segment.begin);
  if (segments_.back().count == 0) segments_.pop_back();
  segments_.push_back(std::move(segment));
  length_ = length;
}

bool KvTokens::appendSome(const KvSource& k, const KvSource& v, int64_t tokens) {
  for (int64_t done = 0; done < tokens;) {
    Segment& tail = segments_.back();
    const int64_t room = tail.memory->capacity() - tail.count;
    if (room == 0 || !canGrow(tail)) {
      Segment next = makeSegment(length_, 1);
      if (!next.memory) return false;
      continueWith(std::move(next));
      continue;
    }
    tail.memory->truncate(tail.count);
    const int64_t count = minimum(room, tokens - done);
    if (!tail.memory->append(from(k, done), from(v, done), count)) return false;
    tail.count += count;
    length_ += count;
    done += count;
  }
  return true;
}

bool KvTokens::append(const KvSource& k, const KvSource& v, int64_t tokens) {
  if (!appendRevocably(k, v, tokens)) return false;
  confirmAppend();
  return true;
}

bool KvTokens::appendRevocably(const KvSource& k, const KvSource& v, int64_t tokens) {
  if (segments_.empty() || tokens < 0 || tokens > capacity() - length_) return false;
  newestBegin_ = length_;
  if (appendSome(k, v, tokens)) return true;
  truncate(newestBegin_);
  return false;
}

bool KvTokens::confirmAppend() { return hasWindow() && newestBegin_ < length_ && evict(newestBegin_); }

// Drops the segments that no query at or beyond `position` sees; whether there were any.
bool KvTokens::evict(int64_t position) {
  const int64_t before = keptBegin_;
  const int64_t visible = position - window_.tokens + 1;
  const auto isGone = [&](const Segment& segment) {
    return segment.begin >= window_.sinkTokens && segment.end() <= visible;
  };
  for (size_t i = 0; i < segments_.size();) {
    if (i + 1 == segments_.size() || !isGone(segments_[i])) {
      ++i;
      continue;
    }
    keptBegin_ = segments_[i].end();
    if (segments_[i].memory.use_count() == 1) spare_ = std::move(segments_[i].memory);
    segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return keptBegin_ != before;
}

void KvTokens::truncate(int64_t length) {
  if (segments_.empty()) return;
  length_ = minimum(length_, maximum(length, 0));
  while (segments_.size() > 1 && segments_.back().begin >= length_) {
    if (segments_.back().memory.use_count() == 1 && hasWindow()) spare_ = std::move(segments_.back().memory);
    segments_.pop_back();
  }
  Segment& tail = segments_.back();
  tail.count = minimum(tail.count, maximum(0, length_ - tail.begin));
}

bool KvTokens::keep(int64_t begin, const int64_t* indices, int64_t count) {
  // The rows are gathered aside first: they may move over one another.
  const KvCacheConfig& c = config_;
  const int64_t heads = c.batch * c.numKvHeads;
  const int64_t kBytes = c.rowBytes(c.headDim), vBytes = c.rowBytes(c.valueDim);
  std::unique_ptr<uint8_t[]> rows(new (std::nothrow) uint8_t[static_cast<size_t>(heads * count * (kBytes + vBytes) + 1)]);
  if (!rows) return false;
  uint8_t* const keys = rows.get();
  uint8_t* const values = keys + heads * count * kBytes;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = head / c.numKvHeads, h = head % c.numKvHeads, row = begin + indices[i];
      copyRows(false, b, h, row, row + 1, keys + (head * count + i) * kBytes);
      copyRows(true, b, h, row, row + 1, values + (head * count + i) * vBytes);
    }
  }
  const KvSource k{keys, c.numKvHeads * count * kBytes, count * kBytes, kBytes, true};
  const KvSource v{values, c.numKvHeads * count * vBytes, count * vBytes, vBytes, true};
  const Segment& tail = segments_.back();
  if (begin < tail.begin || tail.memory.use_count() > 1) {
    Segment next = makeSegment(begin, count);
    if (!next.memory || !next.memory->append(k, v, count)) return false;
    next.count += count;
    continueWith(std::move(next));
    return true;
  }
  truncate(begin);
  return appendSome(k, v, count);  // where these rows lay, more lay before: there is memory for them
}

void KvTokens::appendRuns(int64_t batch, std::vector<KeyRun>& runs) const {
  for (const Segment& segment : segments_) {
    const KvCacheMemory& memory = *segment.memory;
    runs.push_back({segment.begin, segment.end(), memory.kRow(batch, 0), memory.vRow(batch, 0),
                    memory.kHeadStrideBytes() / config_.strideUnit(), memory.vHeadStrideBytes() / config_.strideUnit()});
  }
}

void KvTokens::copyRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t end, uint8_t* out) const {
  const int64_t bytes = config_.rowBytes(values ? config_.valueDim : config_.headDim);
  for (const Segment& segment : segments_) {
    const KvCacheMemory& memory = *segment.memory;
    const uint8_t* rows = values ? memory.vRow(batch, head) : memory.kRow(batch, head);
    const int64_t stride = values ? memory.vRowStrideBytes() : memory.kRowStrideBytes();
    for (int64_t row = maximum(begin, segment.begin); row < minimum(end, segment.end()); ++row, out += bytes) {
      memcpy(out, rows + (row - segment.begin) * stride, static_cast<size_t>(bytes));
    }
  }
}

}  // namespace sdpa
