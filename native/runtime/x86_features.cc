#include "x86_features.h"

namespace sdpa {
namespace {

// Intel SDM vol. 1, 13.1: XMM and YMM; with opmask, ZMM0-15 upper halves and ZMM16-31.
constexpr uint64_t kAvxState = 0x6;
constexpr uint64_t kAvx512State = 0xE6;

constexpr uint64_t kAvx512Bits = 0xD0030000;  // of leaf 7's EBX: F, DQ, CD, BW, VL

bool bit(uint32_t word, int index) { return (word >> index & 1) != 0; }

bool holds(uint64_t word, uint64_t wanted) { return (word & wanted) == wanted; }

// Whether there is the palette that TileUnit configures: a virtual machine may show the instructions, and fault on them.
bool hasTilePalette(const X86Cpu& cpu, uint32_t maxLeaf) {
  constexpr uint32_t kTileLeaf = 0x1D;
  if (maxLeaf < kTileLeaf || cpu.cpuid(kTileLeaf, 0).eax < 1) return false;
  const CpuidResult palette = cpu.cpuid(kTileLeaf, 1);
  const uint32_t names = palette.ebx >> 16, rowBytes = palette.ebx & 0xFFFF, rows = palette.ecx & 0xFFFF;
  return names >= 8 && rowBytes >= 64 && rows >= 16;
}

}  // namespace

CpuFeatures x86Features(const X86Cpu& cpu) {
  CpuFeatures features;
  const uint32_t maxLeaf = cpu.cpuid(0, 0).eax;
  if (maxLeaf < 1) return features;
  const CpuidResult leaf1 = cpu.cpuid(1, 0);
  features.sse42 = bit(leaf1.ecx, 20);
  const bool osxsave = bit(leaf1.ecx, 27);
  const uint64_t xcr0 = osxsave ? cpu.xcr0() : 0;
  if (!holds(xcr0, kAvxState)) return features;
  features.avx = bit(leaf1.ecx, 28);
  if (!features.avx) return features;
  features.fma = bit(leaf1.ecx, 12);
  features.f16c = bit(leaf1.ecx, 29);

  if (maxLeaf < 7) return features;
  const CpuidResult leaf7 = cpu.cpuid(7, 0);
  features.avx2 = bit(leaf7.ebx, 5);
  const bool lzcnt = cpu.cpuid(0x80000000, 0).eax >= 0x80000001 && bit(cpu.cpuid(0x80000001, 0).ecx, 5);
  features.bmi = bit(leaf7.ebx, 3) && bit(leaf7.ebx, 8) && lzcnt;
  features.avx512 = holds(xcr0, kAvx512State) && holds(leaf7.ebx, kAvx512Bits);
  const CpuidResult leaf7s1 = leaf7.eax >= 1 ? cpu.cpuid(7, 1) : CpuidResult{};
  features.avx512Vnni = features.avx512 && bit(leaf7.ecx, 11);
  features.avx512Fp16 = features.avx512 && bit(leaf7.edx, 23);
  features.avx512Bf16 = features.avx512 && bit(leaf7s1.eax, 5);
  features.amxTile = holds(xcr0, kAmxState) && bit(leaf7.edx, 24) && hasTilePalette(cpu, maxLeaf);
  features.amxBf16 = features.amxTile && bit(leaf7.edx, 22);
  features.amxInt8 = features.amxTile && bit(leaf7.edx, 25);
  return features;
}

}  // namespace sdpa
