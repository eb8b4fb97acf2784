// Sixteen pairs of bfloat16 in one 512-bit register: how rows of numbers become rows of tiles. Needs no more than
// AVX-512 F and BW.
#pragma once

#include <string.h>

#include "vec_avx512.h"

namespace sdpa {
namespace {

struct Pairs {
  __m512i raw;

  static Pairs load(const BFloat16* p) { return {_mm512_loadu_si512(p)}; }
  // The first n < 32 elements, zeros behind them; nothing past them is read.
  static Pairs loadPartial(const BFloat16* p, int n) {
    return {_mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p)};
  }
  static Pairs zero() { return {_mm512_setzero_si512()}; }
  // The same pair everywhere.
  static Pairs broadcast(const BFloat16* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return {_mm512_set1_epi32(pair)};
  }
  void store(uint16_t* p) const { _mm512_storeu_si512(p, raw); }

  // r[i][j] <-> r[j][i], pairs staying whole.
  static void transpose(Pairs (&r)[16]) {
    Vec block[16];
    for (int i = 0; i < 16; ++i) block[i].raw = _mm512_castsi512_ps(r[i].raw);
    Vec::transpose(block);
    for (int i = 0; i < 16; ++i) r[i].raw = _mm512_castps_si512(block[i].raw);
  }

  // (even[c], odd[c]) of 32 channels c each. Pair j of `low` is channel lowChannel(j), of `high` lowChannel(j) + 4:
  // the order of 128-bit unpacking, which a transpose's row addresses undo.
  static void zip(Pairs even, Pairs odd, Pairs& low, Pairs& high) {
    low.raw = _mm512_unpacklo_epi16(even.raw, odd.raw);
    high.raw = _mm512_unpackhi_epi16(even.raw, odd.raw);
  }
  // Float32 numbers in the order of low and high -> in that of the channels.
  static void unzip(Vec& low, Vec& high) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    const __m512 l = low.raw, h = high.raw;
    low.raw = _mm512_permutex2var_ps(l, first, h);
    high.raw = _mm512_permutex2var_ps(l, second, h);
  }
  // Numbers of `count` channels, in the order of zip by 32 -> in order.
  static void orderChannels(float* o, int64_t count) {
    for (int64_t i = 0; i < count; i += 32) {
      Vec low = Vec::load(o + i), high = Vec::load(o + i + 16);
      unzip(low, high);
      low.store(o + i);
      high.store(o + i + 16);
    }
  }
  static int lowChannel(int j) { return j / 4 * 8 + j % 4; }
};

// Sixteen float32 numbers, cut into bfloat16 slices: x = slice 0 + slice 1 + ..., each rounded to nearest. Slices
// stand in the upper half of each 32 bits; what stands below is not theirs.
template <int kSlices>
struct Slices {
  __m512i raw[kSlices];

  // Halves away from zero: two operations less than to even, for numbers that are halves by chance only.
  static Slices roughlyOf(Vec x) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    Slices slices;
SDPA_UNROLL
    for (int i = 0; i < kSlices; ++i) {
      slices.raw[i] = _mm512_add_epi32(_mm512_castps_si512(x.raw), half);
      if (i + 1 < kSlices) x = x - slices.valueOf(i);
    }
    return slices;
  }

  // Halves to even where there is one slice; of several, the next takes back what one has rounded.
  static Slices of(Vec x) {
    if (kSlices > 1) return roughlyOf(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x.raw), 16), _mm512_set1_epi32(1));
    Slices slices;
    slices.raw[0] = _mm512_add_epi32(_mm512_castps_si512(x.raw), _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return slices;
  }

  Vec valueOf(int i) const {
    return {_mm512_castsi512_ps(_mm512_and_si512(raw[i], _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }

  // Pair j = (even[j], odd[j]).
  static Pairs zip(const Slices& even, const Slices& odd, int i) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    // upper ? odd : even >> 16
    return {_mm512_ternarylogic_epi32(upper, odd.raw[i], _mm512_srli_epi32(even.raw[i], 16), 0xca)};
  }
  // The 32 numbers of low, then high, in their order.
  static Pairs join(const Slices& low, const Slices& high, int i) {
    static const uint16_t kUpperHalves[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                              33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    return {_mm512_permutex2var_epi16(low.raw[i], _mm512_loadu_si512(kUpperHalves), high.raw[i])};
  }
};

// Whether all numbers seen were zero or of a magnitude that tiles compute with as float32 would: no Infinity, no NaN,
// nothing that a product of slices could overflow, no slice that AMX would flush to zero as subnormal.
struct RangeCheck {
  __mmask32 outside = 0;

  // 2^-100 <= |x| <= 2^60: three slices reach 24 bits further down, products of two stay below 2^127.
  void see(Vec x) {
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x.raw), _mm512_set1_epi32(0x7fffffff));
    const __m512i above = _mm512_sub_epi32(magnitude, _mm512_set1_epi32((127 - 100) << 23));
    outside |= _mm512_mask_cmpgt_epu32_mask(_mm512_test_epi32_mask(magnitude, magnitude), above,
                                            _mm512_set1_epi32((100 + 60) << 23));
  }
  // Normal, and at most 2^100.
  void see(Pairs x) {
    const __m512i magnitude = _mm512_and_si512(x.raw, _mm512_set1_epi16(0x7fff));
    const __m512i above = _mm512_sub_epi16(magnitude, _mm512_set1_epi16(0x0080));
    outside |= _mm512_mask_cmpgt_epu16_mask(_mm512_test_epi16_mask(magnitude, magnitude), above,
                                            _mm512_set1_epi16(static_cast<short>((127 + 100 - 1) << 7)));
  }
  bool good() const { return outside == 0; }
};

inline bool any(Mask mask) { return mask.raw != 0; }

// 2^x. Relative error 1.5e-7; 0 for -Infinity; NaN stays NaN. Cheaper than exp, for scores whose maximum was taken away
// within a fused multiply-add.
inline Vec exp2(Vec x) {
  const Vec r{_mm512_reduce_ps(x.raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  Vec p = Vec::broadcast(0.0018775767f);
  p = Vec::fma(p, r, Vec::broadcast(0.0089893397f));
  p = Vec::fma(p, r, Vec::broadcast(0.055826318f));
  p = Vec::fma(p, r, Vec::broadcast(0.24015361f));
  p = Vec::fma(p, r, Vec::broadcast(0.69315308f));
  p = Vec::fma(p, r, Vec::broadcast(1.0f));
  return {_mm512_scalef_ps(p.raw, x.raw)};
}

}  // namespace
}  // namespace sdpa
