// What the processor and the operating system together allow: an instruction set counts only if the system also
// saves its registers.
#pragma once

namespace sdpa {

// One row a feature: field, and the name that backendInfo() shows.
#define SDPA_CPU_FEATURES(X)          \
  X(sse42, "sse4.2")                  \
  X(avx, "avx")                       \
  X(f16c, "f16c")                     \
  X(fma, "fma")                       \
  X(avx2, "avx2")                     \
  X(bmi, "bmi")                       \
  X(avx512, "avx512")                 \
  X(avx512Bf16, "avx512-bf16")        \
  X(avx512Fp16, "avx512-fp16")        \
  X(avx512Vnni, "avx512-vnni")        \
  X(amxTile, "amx-tile")              \
  X(amxBf16, "amx-bf16")              \
  X(amxInt8, "amx-int8")              \
  X(neon, "neon")                     \
  X(neonFp16, "neon-fp16")            \
  X(neonBf16, "neon-bf16")            \
  X(neonDotProduct, "neon-dotprod")   \
  X(neonInt8MatMul, "neon-i8mm")      \
  X(sve, "sve")

// bmi means BMI1, BMI2 and LZCNT together, avx512 F, BW, CD, DQ and VL. A false `fma`, `f16c` or `bmi` beside `avx2` is
// possible in virtual machines. amxTile means tiles of 16 rows of 64 bytes, eight of them.
struct CpuFeatures {
#define SDPA_FIELD(field, name) bool field = false;
  SDPA_CPU_FEATURES(SDPA_FIELD)
#undef SDPA_FIELD
  char brand[49] = "";   // as the processor calls itself; empty if it does not
  int l1dBytes = 0;      // of one core; 0 if unknown
  int l2Bytes = 0;
};

// Detected once, on first use.
const CpuFeatures& cpuFeatures();

// Names of the features present, in the order above; returns how many were written, at most `max`.
int featureNames(const char** out, int max);

// Asks the operating system for the AMX tile registers; true if this process may use them. amxTile says only that the
// hardware and the system know them: on Linux they must be requested once a process, before the first tile
// instruction, and only by programs that will use them, since they enlarge every signal frame. The answer is
// remembered.
bool requestAmx();

}  // namespace sdpa
