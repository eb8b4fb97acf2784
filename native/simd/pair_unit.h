// Sums of products of bfloat16 pairs: vdpbf16ps (AVX-512 BF16).
#pragma once

#include "pairs_avx512.h"

namespace sdpa {
namespace {

struct PairUnit {
  // sum[i] + a[2i] b[2i] + a[2i + 1] b[2i + 1]; subnormals count as zero.
  static Vec multiplyAdd(Pairs a, Pairs b, Vec sum) {
    return {_mm512_dpbf16_ps(sum.raw, (__m512bh)a.raw, (__m512bh)b.raw)};
  }
  // Rounded to nearest even; subnormals become zero.
  static void storeRounded(Vec x, BFloat16* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), (__m256i)_mm512_cvtneps_pbh(x.raw));
  }
};

}  // namespace
}  // namespace sdpa
