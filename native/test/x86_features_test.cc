// Processors that this machine is not, told by their CPUID.
#include "../runtime/x86_features.h"

#include <map>
#include <utility>

#include "test.h"

namespace sdpa {
namespace {

struct MadeUp {
  std::map<std::pair<uint32_t, uint32_t>, CpuidResult> leaves;
  uint64_t xcr0;
  int timesXcr0WasRead;
};

MadeUp& madeUp() {
  static MadeUp cpu;
  return cpu;
}

CpuFeatures featuresFound() {
  madeUp().timesXcr0WasRead = 0;
  return x86Features({[](uint32_t leaf, uint32_t subleaf) { return madeUp().leaves[{leaf, subleaf}]; },
                      [] {
                        ++madeUp().timesXcr0WasRead;
                        return madeUp().xcr0;
                      }});
}

// An Emerald Rapids under Linux.
void makeUpEmeraldRapids() {
  madeUp() = {{{{0, 0}, {0x20, 0, 0, 0}},
               {{1, 0}, {0, 0, 0xFEFA3203, 0}},
               {{7, 0}, {2, 0xF1BF2FB9, 0x1A415FE6, 0x23D14010}},
               {{7, 1}, {0x1C30, 0, 0, 0}},
               {{0x1D, 0}, {1, 0, 0, 0}},
               {{0x1D, 1}, {0x04002000, 0x00080040, 0x00000010, 0}},
               {{0x80000000, 0}, {0x80000008, 0, 0, 0}},
               {{0x80000001, 0}, {0, 0, 0x121, 0}}},
              0x600E7,
              0};
}

TEST(x86Features_ofAProcessorThatHasAll) {
  makeUpEmeraldRapids();
  const CpuFeatures found = featuresFound();
  CHECK(found.sse42 && found.avx && found.f16c && found.fma && found.avx2 && found.bmi);
  CHECK(found.avx512 && found.avx512Bf16 && found.avx512Fp16 && found.avx512Vnni);
  CHECK(found.amxTile && found.amxBf16 && found.amxInt8);
}

// The same as a virtual machine of windows-2025 shows it: CPUID and XCR0 promise AMX, and every instruction of it is illegal.
// What gives it away is that there is no palette.
TEST(x86Features_noTilesWithoutAPalette) {
  makeUpEmeraldRapids();
  madeUp().leaves[{0x1D, 0}] = {};
  const CpuFeatures found = featuresFound();
  CHECK(!found.amxTile && !found.amxBf16 && !found.amxInt8);
  CHECK(found.avx512 && found.avx512Bf16 && found.avx512Vnni);
}

TEST(x86Features_noTilesOfAnotherSize) {
  const CpuidResult smaller[] = {{0, 0x00070040, 0x10, 0}, {0, 0x00080020, 0x10, 0}, {0, 0x00080040, 0x08, 0}};
  for (const CpuidResult& palette : smaller) {
    makeUpEmeraldRapids();
    madeUp().leaves[{0x1D, 1}] = palette;
    CHECK(!featuresFound().amxTile);
  }
}

TEST(x86Features_noMoreThanTheSystemSaves) {
  makeUpEmeraldRapids();
  madeUp().xcr0 = 0xE7;
  CHECK(featuresFound().avx512 && !featuresFound().amxTile);
  madeUp().xcr0 = 0x7;
  CHECK(featuresFound().avx2 && !featuresFound().avx512 && !featuresFound().avx512Vnni);
  madeUp().xcr0 = 0x3;
  CHECK(featuresFound().sse42 && !featuresFound().avx && !featuresFound().avx2 && !featuresFound().fma);
}

TEST(x86Features_xcr0IsReadOnlyWhereItCanBe) {
  makeUpEmeraldRapids();
  madeUp().leaves[{1, 0}].ecx &= ~(1u << 27);  // OSXSAVE
  CHECK(!featuresFound().avx && !featuresFound().avx512);
  CHECK_EQ(madeUp().timesXcr0WasRead, 0);
}

TEST(x86Features_eachPartOfAGroupCounts) {
  for (const int index : {16, 17, 28, 30, 31}) {
    makeUpEmeraldRapids();
    madeUp().leaves[{7, 0}].ebx &= ~(1u << index);
    CHECK(!featuresFound().avx512 && !featuresFound().avx512Bf16 && featuresFound().avx2);
  }
  for (const int index : {3, 8}) {
    makeUpEmeraldRapids();
    madeUp().leaves[{7, 0}].ebx &= ~(1u << index);
    CHECK(!featuresFound().bmi && featuresFound().avx2);
  }
  makeUpEmeraldRapids();
  madeUp().leaves[{0x80000001, 0}].ecx = 0;
  CHECK(!featuresFound().bmi);
}

TEST(x86Features_leavesBeyondTheLastAreNotBelieved) {
  makeUpEmeraldRapids();
  madeUp().leaves[{0, 0}].eax = 0x1C;
  CHECK(!featuresFound().amxTile && featuresFound().avx512);
  madeUp().leaves[{0, 0}].eax = 6;
  CHECK(!featuresFound().avx2 && featuresFound().fma);
}

}  // namespace
}  // namespace sdpa
