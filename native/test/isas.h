// The ISAs of this build, and which of them this machine has.
#pragma once

#include <iostream>
#include <string>
#include <vector>

#include "../runtime/dispatch.h"
#include "isa/vec_table.h"

extern "C" {
extern const sdpa::test::VecTable sdpa_vec_portable;
#if defined(__x86_64__) || defined(_M_X64)
extern const sdpa::test::VecTable sdpa_vec_avx2, sdpa_vec_avx512, sdpa_vec_avx512bf16, sdpa_vec_amx;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const sdpa::test::VecTable sdpa_vec_neon;
#endif
}

namespace sdpa {
namespace test {

struct Isa {
  const KernelTable& kernels;
  const VecTable& vec;
};

// Those that can run here; the others are named once, with the reason.
inline const std::vector<Isa>& isas() {
  static const std::vector<Isa> found = [] {
    std::vector<Isa> isas;
    for (const VecTable* vec : {
#if defined(__x86_64__) || defined(_M_X64)
             &sdpa_vec_amx, &sdpa_vec_avx512bf16, &sdpa_vec_avx512, &sdpa_vec_avx2,
#elif defined(__aarch64__) || defined(_M_ARM64)
             &sdpa_vec_neon,
#endif
             &sdpa_vec_portable}) {
      const KernelTable* kernels = findKernels(vec->isa);
      if (kernels) {
        isas.push_back({*kernels, *vec});
      } else {
        std::cout << "  skipped the ISA " << vec->isa << ": this processor or operating system lacks it\n";
      }
    }
    return isas;
  }();
  return found;
}

}  // namespace test
}  // namespace sdpa
