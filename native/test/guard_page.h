// Memory between two inaccessible pages: a read or write one byte past an input faults at once, in optimized builds
// too, where a sanitizer is not there to see it.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../runtime/virtual_memory.h"

namespace sdpa {
namespace test {

// Where the guarded bytes touch an inaccessible page.
enum class GuardSide {
  kAfter,   // they end exactly at one
  kBefore,  // they start right after one
};

// Space (filled with 0xFF bytes) for `count` values of T that touches the guard without a gap, whatever that does to
// its alignment beyond alignof(T). data() is null if memory is out.
template <typename T>
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t count, GuardSide side = GuardSide::kAfter) : count_(count) {
    const size_t bytes = count * sizeof(T);
    const size_t committed = roundUp(bytes == 0 ? 1 : bytes, kCommitBytes);
    // One inaccessible unit on either side.
    if (!range_.reserve(committed + 2 * kCommitBytes)) return;
    if (!range_.commit(kCommitBytes, kCommitBytes + committed)) return;
    uint8_t* begin = range_.data() + kCommitBytes;
    data_ = reinterpret_cast<T*>(side == GuardSide::kBefore ? begin : begin + committed - bytes);
    // What lies on the other side of the values is no zero that could hide a wrong read: as float32, a NaN.
    memset(begin, 0xFF, committed);
  }

  T* data() const { return data_; }
  size_t size() const { return count_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + count_; }
  T& operator[](size_t index) const { return data_[index]; }

 private:
  AddressRange range_;
  size_t count_;
  T* data_ = nullptr;
};

}  // namespace test
}  // namespace sdpa
