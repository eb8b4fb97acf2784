// Layout
// ======
//
// One address range holds 2 * batch * numKvHeads *regions*, first the keys' then the values', each the rows of one
// (batch, head), contiguous in tokens: a decode step streams each region once, front to back. A region has address
// space for capacity() tokens from the start, so it grows by committing more of it and nothing ever moves.
//
// - Rows are padded to 64 bytes: aligned loads, and no vector straddles two cache lines. The padding is never
//   written, and fresh memory is zero. Rows of int8 are not padded: half of a line would be lost to the scale of each.
// - The heads of one side lie at one stride, so that a kernel addresses them as it does any tensor. Values start an odd
//   number of cache lines after the keys modulo 4 KiB: at the same offset, key and value of a token would fall in one
//   L1 set, and a store to one would falsely block loads from the other.
// - Without maxLength, capacity is what the machine's memory could hold at most: address space is cheap (it has
//   no page tables before it is touched), but not endless when every layer of a model takes a range.
//
// Growing
// =======
//
// All regions have the same length, so one number, committedLength, tells how much of each is committed: up to
// kLargeRegionBytes in steps of 64 KiB, so that short caches stay small, then in whole huge pages, of which at most
// an eighth is waste. A huge page costs 0.23 ms at its first touch (5 ms where a hypervisor must find the memory), 2
// MiB of small pages 0.5 ms. A block of 2 MiB that was filled by small appends has small pages; MADV_COLLAPSE makes
// it a huge one (0.4 ms), and each append does this for one region at most, lest all heads stop for it at the same
// token.
#include "kv_cache.h"

#include <string.h>

#include <algorithm>
#include <atomic>

#include "thread_pool.h"

namespace sdpa {
namespace {

constexpr int64_t kRowAlignment = 64;
constexpr int64_t kStaggerBytes = 13 * kRowAlignment;
constexpr int64_t kLargeRegionBytes = 4 * static_cast<int64_t>(kHugePageBytes);
constexpr int64_t kMaxUnboundedTokens = int64_t{4} << 20;
constexpr int64_t kUnknownMemoryBytes = int64_t{64} << 30;
constexpr int64_t kMaxRangeBytes = int64_t{1} << 46;  // half of what a process has on x86-64
constexpr int64_t kParallelBytes = int64_t{1} << 20;  // an append larger than this is worth several threads

std::atomic<int64_t> totalBytes{0};
std::atomic<int64_t> peakBytes{0};

void addToTotal(int64_t bytes) {
  const int64_t now = totalBytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t peak = peakBytes.load(std::memory_order_relaxed);
  while (now > peak && !peakBytes.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

int64_t roundUpTo(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

KvMemoryBytes kvMemoryBytes() {
  return {totalBytes.load(std::memory_order_relaxed), peakBytes.load(std::memory_order_relaxed)};
}

// Lays the regions out for `capacity` tokens; returns the bytes of address space they take, or -1 if absurd.
int64_t KvCacheMemory::layOut(int64_t capacity) {
  // In double first: the product of five extents from outside may overflow anything else.
  const double rowBytes = static_cast<double>(config_.headDim + config_.valueDim) * config_.elementBytes + 8;
  const double regions = 2.0 * static_cast<double>(config_.batch) * config_.numKvHeads;
  const double perToken = rowBytes + 2 * kRowAlignment;
  if (regions * (perToken * static_cast<double>(capacity) + kHugePageBytes) > static_cast<double>(kMaxRangeBytes)) {
    return -1;
  }

  const auto layOutSide = [&](int64_t dim, int64_t offset) {
    Side side;
    side.rowBytes = roundUpTo(config_.rowBytes(dim), config_.isInt8 ? 4 : kRowAlignment);
    const int64_t bytes = capacity * side.rowBytes + kStaggerBytes;
    // Whole huge pages for regions that can fill some; small ones lie close together.
    const auto huge = static_cast<int64_t>(kHugePageBytes);
    side.regionBytes = roundUpTo(bytes, bytes < huge ? static_cast<int64_t>(kCommitBytes) : huge);
    side.offset = roundUpTo(offset, huge);
    return side;
  };
  k_ = layOutSide(config_.headDim, 0);
  v_ = layOutSide(config_.valueDim, heads() * k_.regionBytes);
  return v_.offset + heads() * v_.regionBytes;
}

// As many tokens as the machine's memory could hold; fewer where address space is short. In that case an eighth of
// what could be had is taken: the other caches and the host program need some too.
bool KvCacheMemory::reserveUnbounded() {
  const int64_t memory = static_cast<int64_t>(std::min<uint64_t>(physicalMemoryBytes(), kMaxRangeBytes));
  const int64_t budget = memory > 0 ? memory : kUnknownMemoryBytes;
  const int64_t rowBytes = config_.rowBytes(config_.headDim) + config_.rowBytes(config_.valueDim);
  const int64_t fitting = budget / std::max<int64_t>(1, rowBytes) / std::max<int64_t>(1, heads());
  const int64_t smallest = std::max<int64_t>(1, static_cast<int64_t>(kCommitBytes) / rowBytes);
  int64_t capacity = std::max(smallest, std::min(kMaxUnboundedTokens, fitting));
  const auto attempt = [&] {
    const int64_t bytes = layOut(capacity);
    return bytes > 0 && range_.reserve(static_cast<size_t>(bytes));
  };
  bool reserved = attempt();
  const bool shortOfSpace = !reserved;
  while (!reserved && capacity > smallest) {
    capacity = std::max(smallest, capacity / 2);
    reserved = attempt();
  }
  if (reserved && shortOfSpace) {
    capacity = std::max(smallest, capacity / 8);
    reserved = attempt();
  }
  if (reserved) capacity_ = capacity;
  return reserved;
}

bool KvCacheMemory::reserve(const KvCacheConfig& config) {
  release();
  config_ = config;
  if (config.maxLength == 0) {
    if (!reserveUnbounded()) return false;
  } else {
    const int64_t bytes = layOut(config.maxLength);
    if (bytes < 0 || !range_.reserve(static_cast<size_t>(bytes))) return false;
    capacity_ = config.maxLength;
  }
  return true;
}

void KvCacheMemory::release() {
  if (range_.data() == nullptr) return;
  range_.release();
  addToTotal(-byteLength_);
  capacity_ = length_ = committedLength_ = byteLength_ = collapsedRegions_ = collapsedBlocks_ = 0;
}

void KvCacheMemory::truncate(int64_t length) { length_ = std::min(length_, std::max<int64_t>(length, 0)); }

size_t KvCacheMemory::regionStart(int64_t region) const {
  const Side& side = sideOf(region);
  const int64_t index = region < heads() ? region : region - heads();
  const int64_t stagger = region < heads() ? 0 : kStaggerBytes;
  return static_cast<size_t>(side.offset + index * side.regionBytes + stagger);
}

// The part of the range that is committed when `length` tokens have memory.
KvCacheMemory::Span KvCacheMemory::committedSpan(int64_t region, int64_t length) const {
  const Side& side = sideOf(region);
  const size_t start = regionStart(region);
  const size_t begin = roundDown(start, kCommitBytes);
  if (length == 0) return {begin, begin};
  const int64_t bytes = length * side.rowBytes;
  // A region smaller than a huge page is never large, so this stays within the region.
  const size_t step = bytes < kLargeRegionBytes ? kCommitBytes : kHugePageBytes;
  return {begin, roundUp(start + static_cast<size_t>(bytes), step)};
}

bool KvCacheMemory::commit(int64_t length) {
  if (length <= committedLength_) return true;
  int64_t added = 0;
  for (int64_t region = 0; region < numRegions(); ++region) {
    const Span now = committedSpan(region, committedLength_);
    const Span wanted = committedSpan(region, length);
    if (!range_.commit(now.end, wanted.end)) {
      // Nothing is kept of a failure: where memory is out, the rest of the process needs what is left.
      for (; region >= 0; --region) {
        range_.decommit(committedSpan(region, committedLength_).end, committedSpan(region, length).end);
      }
      return false;
    }
    added += static_cast<int64_t>(wanted.end - now.end);
  }
  committedLength_ = length;
  byteLength_ += added;
  if (added > 0) addToTotal(added);
  return true;
}

struct KvCacheMemory::AppendJob {
  const KvCacheMemory* cache;
  const KvSource* k;
  const KvSource* v;
  int64_t tokens;
};

void KvCacheMemory::copyRegion(void* context, int64_t region, int) {
  const AppendJob& job = *static_cast<const AppendJob*>(context);
  const KvCacheMemory& cache = *job.cache;
  const bool isKey = region < cache.heads();
  const int64_t index = isKey ? region : region - cache.heads();
  const KvSource& source = isKey ? *job.k : *job.v;
  const int64_t strideBytes = cache.sideOf(region).rowBytes;
  const int64_t dim = isKey ? cache.config_.headDim : cache.config_.valueDim;
  const size_t rowBytes = static_cast<size_t>(cache.config_.rowBytes(dim));
  const uint8_t* from = static_cast<const uint8_t*>(source.data) +
                        index / cache.config_.numKvHeads * source.batchStrideBytes +
                        index % cache.config_.numKvHeads * source.headStrideBytes;
  uint8_t* to = cache.regionData(region) + cache.length_ * strideBytes;
  if (cache.config_.isInt8 && !source.isStored) {
    for (int64_t token = 0; token < job.tokens; ++token) {
      quantiseRow(reinterpret_cast<const float*>(from + token * source.rowStrideBytes), dim,
                  reinterpret_cast<int8_t*>(to + token * strideBytes));
    }
    return;
  }
  if (source.rowStrideBytes == strideBytes && static_cast<int64_t>(rowBytes) == strideBytes) {
    memcpy(to, from, rowBytes * static_cast<size_t>(job.tokens));
    return;
  }
  for (int64_t token = 0; token < job.tokens; ++token) {
    memcpy(to + token * strideBytes, from + token * source.rowStrideBytes, rowBytes);
  }
}

bool isQuantisable(const KvCacheConfig& config, const KvSource& source, int64_t tokens, int64_t dim) {
  const uint8_t* const first = static_cast<const uint8_t*>(source.data);
  for (int64_t head = 0; head < config.batch * config.numKvHeads; ++head) {
    const uint8_t* rows = first + head / config.numKvHeads * source.batchStrideBytes +
                          head % config.numKvHeads * source.headStrideBytes;
    for (int64_t token = 0; token < tokens; ++token) {
      if (!isFiniteRow(reinterpret_cast<const float*>(rows + token * source.rowStrideBytes), dim)) return false;
    }
  }
  return true;
}

bool KvCacheMemory::append(const KvSource& k, const KvSource& v, int64_t tokens) {
  if (tokens < 0 || tokens > capacity_ - length_) return false;
  if (tokens == 0) return true;
  if (!commit(length_ + tokens)) return false;
  AppendJob job{this, &k, &v, tokens};
  const bool isLarge = tokens * (k_.rowBytes + v_.rowBytes) * heads() >= kParallelBytes;
  ThreadPool::shared().parallelFor(numRegions(), copyRegion, &job, {isLarge ? 0 : 1, nullptr});
  length_ += tokens;
  collapseOneBlock();
  return true;
}

// Turns the next filled block of the next region into a huge page; one call does at most one. Beyond
// kLargeRegionBytes blocks are committed whole, and so get their huge page when first touched.
void KvCacheMemory::collapseOneBlock() {
  const int64_t block = collapsedBlocks_ * static_cast<int64_t>(kHugePageBytes);
  if (block >= kLargeRegionBytes) return;
  const int64_t region = collapsedRegions_;
  const size_t start = regionStart(region);
  const size_t begin = roundDown(start, kCommitBytes) + static_cast<size_t>(block);
  const size_t end = begin + kHugePageBytes;
  const size_t filled = start + static_cast<size_t>(length_ * sideOf(region).rowBytes);
  if (end > filled) return;
  range_.collapse(begin, end);
  if (++collapsedRegions_ == numRegions()) {
    collapsedRegions_ = 0;
    ++collapsedBlocks_;
  }
}

}  // namespace sdpa
