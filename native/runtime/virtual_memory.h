// Address space that is reserved once and filled as needed: memory that grows in place.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sdpa {

// Ranges are aligned to this, so that huge pages fit; it is the size of one on x86-64 and arm64 with 4 KiB pages.
constexpr size_t kHugePageBytes = size_t{2} << 20;

// Commits are in multiples of this: the allocation unit of Windows, and the largest page of arm64.
constexpr size_t kCommitBytes = size_t{64} << 10;

constexpr size_t roundDown(size_t bytes, size_t unit) { return bytes - bytes % unit; }
constexpr size_t roundUp(size_t bytes, size_t unit) { return roundDown(bytes + unit - 1, unit); }

// Inaccessible until committed; committed bytes are zero and get their pages when first touched. Huge pages are asked
// for, but a huge page is only used where all its 2 MiB are committed, so small commits stay small.
class AddressRange {
 public:
  AddressRange() = default;
  ~AddressRange() { release(); }
  AddressRange(const AddressRange&) = delete;
  AddressRange& operator=(const AddressRange&) = delete;

  // Takes `bytes` (rounded up to whole huge pages) of address space; a range that is held is released first.
  // False if there is none to be had (ulimit -v, a small address space), or bytes is 0.
  bool reserve(size_t bytes);

  // Makes [begin, end) usable, both multiples of kCommitBytes; what is committed already stays as it is. False if the
  // system refuses: nothing can be said then of the bytes that were not committed before.
  bool commit(size_t begin, size_t end);

  // Gives back what commit took; what was in [begin, end) is lost.
  void decommit(size_t begin, size_t end);

  // Turns the small pages in [begin, end), whole huge pages, into huge ones. A hint: does nothing where it can't.
  void collapse(size_t begin, size_t end);

  void release();

  uint8_t* data() const { return data_; }
  size_t reserved() const { return reserved_; }

 private:
  uint8_t* data_ = nullptr;
  size_t reserved_ = 0;
};

// Main memory of the machine in bytes, 0 if unknown.
uint64_t physicalMemoryBytes();

}  // namespace sdpa
