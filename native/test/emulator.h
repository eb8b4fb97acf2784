// What an emulator gets wrong.
#pragma once

#include "guard_page.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace sdpa {
namespace test {

// Whether qemu's TCG runs us: version 7.2 faults on the lanes that vmaskmovps masks out, which no processor reads.
inline bool isEmulatedX86() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned eax, signature[3];
  __cpuid(0x40000000, eax, signature[0], signature[1], signature[2]);
  return memcmp(signature, "TCGTCGTCGTCG", 12) == 0;
#else
  return false;
#endif
}

// The side asked for, or where masked lanes are read, the one that leaves room behind the values.
inline GuardSide reliableSide(GuardSide side) { return isEmulatedX86() ? GuardSide::kBefore : side; }

// Whether to do one more of many cases: one of 13 where an AVX2 instruction takes a hundred times as long.
inline bool isWorthwhile() {
  static int calls = 0;
  return !isEmulatedX86() || calls++ % 13 == 0;
}

}  // namespace test
}  // namespace sdpa
