// The bytes of the fuzzer as choices, and memory in which a step too far is seen.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>

#include "../runtime/dispatch.h"
#include "../test/guard_page.h"

namespace sdpa {
namespace fuzz {

// Choices, from the first byte on; zeros where there are no more.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  bool isEmpty() const { return at_ == end_; }
  uint8_t byte() { return at_ < end_ ? *at_++ : 0; }
  int64_t below(int64_t n) { return n <= 256 ? byte() % n : (byte() * 256 + byte()) % n; }
  bool one(int64_t of) { return byte() % of == 1; }  // never where the bytes are out

  // Any double, of which those at the ends of a range come often.
  double number() {
    static const double special[] = {0,     -1,    1,     2,      -2,    63,    64,        65,         0x1p31,     -0x1p31, 0x1p32, 0x1p52,
                                     -0x1p52, 0x1p53, -0x1p53, 0x1p62, 0x1p63, -0x1p63,     0x1p64,     1e300,      -1e300,  0.5,   1.0 / 0.0,
                                     -1.0 / 0.0, 0.0 / 0.0, 0x1p31 - 1, 0x1p30, 0x1p51, -0x1p51, 4611686018427387904.0};
    const uint8_t choice = byte();
    if (choice < sizeof special / sizeof special[0]) return special[choice];
    if (choice < 128) return static_cast<double>(static_cast<int8_t>(byte()));
    double x = 0;
    uint8_t bytes[8];
    for (uint8_t& b : bytes) b = byte();
    memcpy(&x, bytes, sizeof x);
    return x;
  }

 private:
  const uint8_t *at_, *end_;
};

// Exactly so many bytes: in the heap, where AddressSanitizer sees one too far on either side; or before a page that nobody may
// touch, for instructions that it does not see.
class Memory {
 public:
  Memory(size_t bytes, bool atPage, size_t which) : size_(bytes) {
    static test::GuardedBuffer<uint8_t>* pages[16] = {};
    if (atPage && bytes <= kPageBytes && which < 16) {
      if (!pages[which]) pages[which] = new test::GuardedBuffer<uint8_t>(kPageBytes);
      data_ = pages[which]->data() + (kPageBytes - bytes);
    } else {
      heap_.reset(new uint8_t[bytes]);
      data_ = heap_.get();
    }
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

  // Bits of any kind, or small numbers of a dtype of so many bytes.
  void fill(uint32_t seed, bool anyBits, int64_t elementBytes) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < size_; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      data_[i] = static_cast<uint8_t>(state >> 56);
      const bool isTop = elementBytes > 1 && i % static_cast<size_t>(elementBytes) == static_cast<size_t>(elementBytes) - 1;
      if (isTop && !anyBits) data_[i] = static_cast<uint8_t>((data_[i] & 0x81) | 0x3e);
    }
  }

 private:
  static constexpr size_t kPageBytes = 1 << 18;
  size_t size_;
  uint8_t* data_ = nullptr;
  std::unique_ptr<uint8_t[]> heap_;
};

// The kernels of NODE_SDPA_ISA, or of any ISA that this machine has.
inline void selectIsa(Input& input) {
  const char* names[16];
  const int count = availableIsas(names, 16);
  const char* pinned = getenv("NODE_SDPA_ISA");
  const char* chosen = names[input.below(count)];
  selectKernels(pinned ? pinned : chosen);
}

}  // namespace fuzz
}  // namespace sdpa
