#include "runtime/dispatch.h"

#include <string.h>

#include <atomic>

#include "runtime/cpu_features.h"

extern "C" {
extern const sdpa::KernelTable sdpa_kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const sdpa::KernelTable sdpa_kernels_avx2, sdpa_kernels_avx512, sdpa_kernels_avx512bf16,
    sdpa_kernels_amx;
#if !defined(__APPLE__)  // no Mac has them, and what nobody names is not linked
#define SDPA_BFLOAT16_UNITS 1
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const sdpa::KernelTable sdpa_kernels_neon;
#endif
}

namespace sdpa {
namespace {

struct IsaRow {
  const KernelTable* table;
  bool (*supported)(const CpuFeatures& cpu);
  bool (*fastest)(const CpuFeatures& cpu);  // faster than those that follow; the others must be asked for
};

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER) && !defined(__clang__)
constexpr bool kNeedsBmi = true;  // /arch:AVX2 means it too
#else
constexpr bool kNeedsBmi = false;
#endif

bool hasAvx2(const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c && (cpu.bmi || !kNeedsBmi); }
bool hasAvx512(const CpuFeatures& cpu) { return cpu.avx512 && hasAvx2(cpu); }
#endif
#if defined(SDPA_BFLOAT16_UNITS)
#if defined(SDPA_EMULATED_TILES)  // in tests (simd/tiles_emulated.h)
bool hasAmx(const CpuFeatures& cpu) { return hasAvx512(cpu) && cpu.avx512Vnni; }
bool isAmxFast(const CpuFeatures&) { return false; }
#else
bool hasAmx(const CpuFeatures& cpu) {
  return hasAvx512(cpu) && cpu.avx512Vnni && cpu.amxTile && cpu.amxBf16 && requestAmx();
}
bool isAmxFast(const CpuFeatures&) { return true; }
#endif
#endif
bool always(const CpuFeatures&) { return true; }

// Best first.
const IsaRow kIsas[] = {
#if defined(SDPA_BFLOAT16_UNITS)
    {&sdpa_kernels_amx, hasAmx, isAmxFast},
    // vdpbf16ps does twice the FMA rate on AMD's cores, half of it on Intel's.
    {&sdpa_kernels_avx512bf16, [](const CpuFeatures& cpu) { return hasAvx512(cpu) && cpu.avx512Vnni && cpu.avx512Bf16; },
     [](const CpuFeatures& cpu) { return strstr(cpu.brand, "AMD") != nullptr; }},
#endif
#if defined(__x86_64__) || defined(_M_X64)
    {&sdpa_kernels_avx512, hasAvx512, always},
    {&sdpa_kernels_avx2, hasAvx2, always},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {&sdpa_kernels_neon, [](const CpuFeatures& cpu) { return cpu.neon; }, always},
#endif
    {&sdpa_kernels_portable, always, always},
};

std::atomic<const KernelTable*> active{nullptr};

}  // namespace

int availableIsas(const char** out, int max) {
  int count = 0;
  for (const IsaRow& row : kIsas) {
    if (count < max && row.supported(cpuFeatures())) out[count++] = row.table->isa;
  }
  return count;
}

const KernelTable* findKernels(const char* isa) {
  for (const IsaRow& row : kIsas) {
    if (strcmp(row.table->isa, isa) == 0) return row.supported(cpuFeatures()) ? row.table : nullptr;
  }
  return nullptr;
}

const KernelTable& activeKernels() {
  const KernelTable* table = active.load(std::memory_order_acquire);
  if (table) return *table;
  for (const IsaRow& row : kIsas) {
    if (row.supported(cpuFeatures()) && row.fastest(cpuFeatures())) return *row.table;
  }
  return sdpa_kernels_portable;
}

bool selectKernels(const char* isa) {
  const KernelTable* table = findKernels(isa);
  if (!table) return false;
  active.store(table, std::memory_order_release);
  return true;
}

}  // namespace sdpa
