// The memory of a KV cache: grows in place, never copies what it holds. Its layout is told in kv_cache.cc.
#pragma once

#include <stdint.h>

#include "int8_row.h"
#include "virtual_memory.h"

namespace sdpa {

struct KvCacheConfig {
  int64_t batch = 1;
  int64_t numKvHeads = 1;
  int64_t headDim = 1;       // elements of a key
  int64_t valueDim = 1;      // elements of a value
  int64_t elementBytes = 4;  // of keys and values alike, as they are appended
  int64_t maxLength = 0;     // tokens; 0 = as many as memory holds
  bool isInt8 = false;       // float32 rows become rows of int8 (int8_row.h)

  // Of a row of `dim` numbers as it is stored, without padding.
  int64_t rowBytes(int64_t dim) const { return isInt8 ? int8RowBytes(dim) : dim * elementBytes; }
  // What strides of stored rows count.
  int64_t strideUnit() const { return isInt8 ? 1 : elementBytes; }
};

// Keys or values to append, [batch, numKvHeads, tokens, headDim or valueDim]; the last axis is contiguous.
struct KvSource {
  const void* data = nullptr;
  int64_t batchStrideBytes = 0;
  int64_t headStrideBytes = 0;
  int64_t rowStrideBytes = 0;
  bool isStored = false;  // rows are as the cache stores them
};

// Whether an int8 cache can hold these rows: every number is finite.
bool isQuantisable(const KvCacheConfig& config, const KvSource& source, int64_t tokens, int64_t dim);

// Memory committed for all caches of this process.
struct KvMemoryBytes {
  int64_t now, peak;
};
KvMemoryBytes kvMemoryBytes();

// One thread at a time may call what changes it (reserve, append, truncate, release); rows that are cached may be
// read meanwhile from any thread, but not truncated or released.
class KvCacheMemory {
 public:
  KvCacheMemory() = default;
  ~KvCacheMemory() { release(); }
  KvCacheMemory(const KvCacheMemory&) = delete;
  KvCacheMemory& operator=(const KvCacheMemory&) = delete;

  // Takes the address space; every extent of `config` is at least 1 but maxLength. False if there is not enough: of
  // maxLength tokens all, without a maxLength those of kCommitBytes a head.
  bool reserve(const KvCacheConfig& config);

  // Appends `tokens` rows to each (batch, head). False, with nothing changed, if capacity() doesn't hold them or
  // memory is out.
  bool append(const KvSource& k, const KvSource& v, int64_t tokens);

  // Appends `tokens` rows that writeRows has yet to bring; until then they hold whatever was there. False as append.
  bool extend(int64_t tokens);

  // Brings the rows [begin, begin + count) of a head, packed, of tokens that are there and that nobody reads meanwhile.
  void writeRows(bool values, int64_t batch, int64_t head, int64_t begin, int64_t count, const uint8_t* rows);

  // Forgets the rows at and beyond `length`, which is at most length(). Their memory stays for the next append.
  void truncate(int64_t length);

  // Gives all memory back; length, capacity and byteLength are 0 then.
  void release();

  const KvCacheConfig& config() const { return config_; }
  int64_t length() const { return length_; }      // tokens cached
  int64_t capacity() const { return capacity_; }  // tokens that have address space
  int64_t byteLength() const { return byteLength_; }  // memory committed; its pages come when first written

  // Row 0 of a head: row i lies i * kRowStrideBytes() further, without a gap. 64-byte aligned, as every row is; the
  // padding of a row is zero.
  const uint8_t* kRow(int64_t batch, int64_t head) const { return regionData(regionOf(batch, head)); }
  const uint8_t* vRow(int64_t batch, int64_t head) const { return regionData(heads() + regionOf(batch, head)); }
  int64_t kRowStrideBytes() const { return k_.rowBytes; }
  int64_t vRowStrideBytes() const { return v_.rowBytes; }
  // From head to head; from batch entry to batch entry it is numKvHeads times that.
  int64_t kHeadStrideBytes() const { return k_.regionBytes; }
  int64_t vHeadStrideBytes() const { return v_.regionBytes; }

 private:
  // What the regions of the keys, or of the values, have in common.
  struct Side {
    int64_t rowBytes = 0;     // padded
    int64_t regionBytes = 0;  // address space of one region
    int64_t offset = 0;       // of the first region in the range
  };
  struct Span {
    size_t begin, end;
  };
  struct AppendJob;

  int64_t heads() const { return config_.batch * config_.numKvHeads; }
  int64_t numRegions() const { return 2 * heads(); }
  int64_t regionOf(int64_t batch, int64_t head) const { return batch * config_.numKvHeads + head; }
  const Side& sideOf(int64_t region) const { return region < heads() ? k_ : v_; }
  size_t regionStart(int64_t region) const;
  uint8_t* regionData(int64_t region) const { return range_.data() + regionStart(region); }

  int64_t layOut(int64_t capacity);
  bool reserveUnbounded();
  Span committedSpan(int64_t region, int64_t length) const;
  bool commit(int64_t length);
  void collapseOneBlock();
  static void copyRegion(void* job, int64_t region, int slot);

  KvCacheConfig config_;
  Side k_;
  Side v_;
  AddressRange range_;
  int64_t capacity_ = 0;
  int64_t length_ = 0;
  int64_t committedLength_ = 0;  // tokens that have memory
  int64_t byteLength_ = 0;
  int64_t collapsedRegions_ = 0;  // of the block that is being collapsed
  int64_t collapsedBlocks_ = 0;   // in every region
};

}  // namespace sdpa
