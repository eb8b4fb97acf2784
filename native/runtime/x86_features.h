// What CPUID and XGETBV say of an x86 processor, whichever answers: this machine's, or one that a test makes up.
#pragma once

#include <stdint.h>

#include "cpu_features.h"

namespace sdpa {

struct CpuidResult {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

struct X86Cpu {
  CpuidResult (*cpuid)(uint32_t leaf, uint32_t subleaf);
  // Extended control register 0: the register states that the operating system saves at a context switch. Asked for only
  // where CPUID shows OSXSAVE; an illegal instruction elsewhere.
  uint64_t (*xcr0)();
};

constexpr uint64_t kAmxState = 0x60000;  // of XCR0: TILECFG and TILEDATA

// The instruction sets; brand and caches are left as they are.
CpuFeatures x86Features(const X86Cpu& cpu);

}  // namespace sdpa
