#include "runtime/dispatch.h"

#include <string.h>

#include <atomic>

#include "runtime/cpu_features.h"

extern "C" {
extern const sdpa::KernelTable sdpa_kernels_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const sdpa::KernelTable sdpa_kernels_avx2, sdpa_kernels_avx512;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const sdpa::KernelTable sdpa_kernels_neon;
#endif
}

namespace sdpa {
namespace {

struct IsaRow {
  const KernelTable* table;
  bool (*supported)(const CpuFeatures& cpu);
};

// Best first.
const IsaRow kIsas[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {&sdpa_kernels_avx512, [](const CpuFeatures& cpu) { return cpu.avx512 && cpu.avx2 && cpu.fma && cpu.f16c; }},
    {&sdpa_kernels_avx2, [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c; }},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {&sdpa_kernels_neon, [](const CpuFeatures& cpu) { return cpu.neon; }},
#endif
    {&sdpa_kernels_portable, [](const CpuFeatures&) { return true; }},
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
    if (row.supported(cpuFeatures())) return *row.table;
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
