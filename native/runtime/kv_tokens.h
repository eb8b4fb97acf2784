// The tokens of a KV cache: a short list of contiguous segments, which forks share and windows recycle.
#pragma once

#include <memory>
#include <vector>

#include "kv_cache.h"
#include "problem.h"

namespace sdpa {

struct KvWindow {
  int64_t tokens = 0;      // the newest that are kept; 0 = all
  int64_t sinkTokens = 0;  // and so many of the first
};

// Of all the caches of this process.
struct KvMemoryInfo {
  int64_t caches;     // made and not released
  int64_t bytes;      // memory committed; what forks share counts once
  int64_t peakBytes;  // the largest that has been
};
KvMemoryInfo kvMemoryInfo();

// One thread at a time may call what changes it; tokens that are cached may be read meanwhile from any thread, but not
// truncated or released.
class KvTokens {
 public:
  KvTokens() = default;
  ~KvTokens() { release(); }
  KvTokens(const KvTokens&) = delete;
  KvTokens& operator=(const KvTokens&) = delete;

  // Takes address space for the first segment. False if there is none, or no memory.
  bool reserve(const KvCacheConfig& config, const KvWindow& window);

  // Makes this an independent continuation of `other`: what is cached is shared, what comes is not. Throws std::bad_alloc, and
  // this holds nothing, where memory is out.
  void forkFrom(const KvTokens& other);

  // Appends `tokens` rows to each (batch, head), then forgets what had left the window before them. False, with nothing
  // changed, if capacity() doesn't hold them or memory is out.
  bool append(const KvSource& k, const KvSource& v, int64_t tokens);

  // The same in two parts, between which truncate(length() before) takes the tokens back without a trace.
  bool appendRevocably(const KvSource& k, const KvSource& v, int64_t tokens);
  bool confirmAppend();  // whether any were forgotten

  // Makes an empty cache one of `length` tokens, those from sinkTokens up to keptBegin gone (0: none), whose rows writeRows
  // has yet to bring. False, and the cache is good for nothing but release, if memory is out. In kv_rows.cc.
  bool restore(int64_t keptBegin, int64_t length);
  void writeRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t end, const uint8_t* rows);

  // Forgets the tokens at and beyond `length`, which is at most length().
  void truncate(int64_t length);

  // Of the tokens from `begin` on keeps those at begin + indices[i], in that order: they then end the cache. False, with
  // nothing changed, if memory is out. 0 <= indices[i] < length() - begin, begin >= keptBegin().
  bool keep(int64_t begin, const int64_t* indices, int64_t count);

  void release();

  const KvCacheConfig& config() const { return config_; }
  const KvWindow& window() const { return window_; }
  bool isReserved() const { return !segments_.empty(); }
  int64_t length() const { return length_; }      // tokens ever appended and not truncated
  int64_t capacity() const;                       // tokens that there is room for
  int64_t byteLength() const;                     // memory committed for its segments, shared or not
  int64_t keptBegin() const { return keptBegin_; }  // tokens from sinkTokens up to here are gone

  // What V8 is told: memory that caches share is divided among them.
  int64_t shareOfBytes() const;

  // The memory of all tokens, where it is one segment from token 0 on; otherwise null.
  const KvCacheMemory* wholeMemory() const { return segments_.size() == 1 && segments_[0].begin == 0 ? segments_[0].memory.get() : nullptr; }

  int64_t kRowStrideBytes() const { return segments_[0].memory->kRowStrideBytes(); }
  int64_t vRowStrideBytes() const { return segments_[0].memory->vRowStrideBytes(); }

  // The runs of a batch entry, in order.
  void appendRuns(int64_t batch, std::vector<KeyRun>& runs) const;

  // Copies the kept rows [begin, end) of a head as they are stored: of sinkTokens and of [keptBegin, length).
  void copyRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t end, uint8_t* out) const;

 private:
  // Row r of the memory is the token at position begin + r; the first `count` rows are this cache's.
  struct Segment {
    std::shared_ptr<KvCacheMemory> memory;
    int64_t begin, count;
    int64_t end() const { return begin + count; }
  };

  bool hasWindow() const { return window_.tokens > 0; }
  int64_t segmentTokens(int64_t begin) const;
  std::shared_ptr<KvCacheMemory> makeMemory(int64_t tokens);
  bool appendSome(const KvSource& k, const KvSource& v, int64_t tokens);
  bool extend(int64_t length);
  bool canGrow(const Segment& tail) const;
  Segment makeSegment(int64_t position, int64_t more);
  void continueWith(Segment segment);
  bool evict(int64_t before);

  KvCacheConfig config_;
  KvWindow window_;
  std::vector<Segment> segments_;
  std::shared_ptr<KvCacheMemory> spare_;  // of an evicted segment, for the next
  int64_t length_ = 0;
  int64_t keptBegin_ = 0;
  int64_t newestBegin_ = 0;  // of the last append
};

}  // namespace sdpa
