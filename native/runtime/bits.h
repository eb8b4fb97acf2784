// Sets of up to 64 numbers in a word.
#pragma once

#include <stdint.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace sdpa {

// bits is not 0.
inline int indexOfLowestBit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, bits);
  return static_cast<int>(index);
#else
  return __builtin_ctzll(bits);
#endif
}

inline int countOfBits(uint64_t bits) {
  int count = 0;
  for (; bits != 0; bits &= bits - 1) ++count;
  return count;
}

}  // namespace sdpa
