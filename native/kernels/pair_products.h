// What the Products have in common whose operands are Pairs: two channels of a key, or two keys' values of a channel.
#pragma once

#include "decode.h"

namespace sdpa {
namespace {

template <class Products, class Stored>
struct PairProductsOf {
  static constexpr int kStep = 2 * Vec::kWidth;
  static constexpr int kValueKeys = 2;
  static constexpr int kGranule = 2 * Vec::kWidth;

  // Two keys' channels side by side, in the order of Pairs::zip: of 32 channels each, two operands.
  template <int kVecs>
  static SDPA_ALWAYS_INLINE void loadValues(const Stored* even, const Stored* odd, int partial, Pairs (&x)[kVecs]) {
SDPA_UNROLL
    for (int i = 0; i < kVecs; i += 2) {
      const int64_t d = i * Vec::kWidth;
      Pairs::zip(partial ? Products::loadPartial(even, partial) : Products::load(even + d),
                 partial ? Products::loadPartial(odd, partial) : Products::load(odd + d), x[i], x[i + 1]);
    }
  }
  static void orderChannels(float* o, int64_t count) { Pairs::orderChannels(o, count); }
};

}  // namespace
}  // namespace sdpa
