// Vec over one 512-bit register (AVX-512 F, BW, DQ, VL).
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "../problem.h"

namespace sdpa {
namespace {

struct Mask {
  __mmask16 raw;
  friend Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.raw & b.raw)}; }
  friend Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.raw | b.raw)}; }
};

struct Vec {
  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;
  __m512 raw;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const Float16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec load(const BFloat16* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vec load(const int8_t* p) { return toFloats(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  // The first n < kWidth elements, zeros behind them; nothing past them is read.
  static Vec loadPartial(const float* p, int n) { return {_mm512_maskz_loadu_ps(firstLanes(n), p)}; }
  static Vec loadPartial(const Float16* p, int n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(firstLanes(n), p))};
  }
  static Vec loadPartial(const BFloat16* p, int n) { return widen(_mm256_maskz_loadu_epi16(firstLanes(n), p)); }
  static Vec loadPartial(const int8_t* p, int n) { return toFloats(_mm_maskz_loadu_epi8(firstLanes(n), p)); }

  void store(float* p) const { _mm512_storeu_ps(p, raw); }
  // Rounded to nearest even; NaN stays NaN.
  void store(Float16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(raw, _MM_FROUND_TO_NEAREST_INT));
  }
  void store(BFloat16* p) const {
    const __m512i bits = _mm512_castps_si512(raw), high = _mm512_srli_epi32(bits, 16);
    const __m512i half = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 isNaN = _mm512_cmp_ps_mask(raw, raw, _CMP_UNORD_Q);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, isNaN, high, _mm512_set1_epi32(0x40))));
  }
  void storePartial(float* p, int n) const { _mm512_mask_storeu_ps(p, firstLanes(n), raw); }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.raw, b.raw)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.raw, b.raw)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.raw, b.raw)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.raw, b.raw)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)}; }
  // The larger; b where either is NaN.
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.raw, b.raw)}; }
  static Vec abs(Vec a) { return {_mm512_abs_ps(a.raw)}; }

  // 2^n for a whole n.
  struct Power {
    __m512 n;
  };
  // n = a * b rounded to a whole number, halves to even.
  static Power roundToPower(Vec a, Vec b) {
    return {_mm512_roundscale_ps(_mm512_mul_ps(a.raw, b.raw), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exponentOf(Power power) { return {power.n}; }
  // a * 2^n, with gradual underflow; NaN stays NaN.
  static Vec scaleBy(Vec a, Power power) { return {_mm512_scalef_ps(a.raw, power.n)}; }
  static constexpr float kExpFloor = -110.0f;  // exp is 0 at and below it

  friend Mask operator<(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_LT_OQ)}; }
  friend Mask operator>=(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_GE_OQ)}; }
  friend Mask operator==(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_EQ_OQ)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_ps(m.raw, b.raw, a.raw)}; }

  // The largest lane; none is NaN.
  static float reduceMax(Vec a) { return _mm512_reduce_max_ps(a.raw); }
  // Four horizontal sums to out[0..3].
  static void reduceAdd4(Vec a, Vec b, Vec c, Vec d, float* out) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.raw, b.raw), _mm512_unpackhi_ps(a.raw, b.raw));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.raw, d.raw), _mm512_unpackhi_ps(c.raw, d.raw));
    const __m512 abcd = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                                      _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
  }

  // r[i][j] <-> r[j][i]
  static void transpose(Vec (&r)[kWidth]) {
    __m512 t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i].raw, r[i + 1].raw);
      t[i + 1] = _mm512_unpackhi_ps(r[i].raw, r[i + 1].raw);
    }
    for (int i = 0; i < 16; i += 4) {
      u[i] = shuffle<0x44>(t[i], t[i + 2]);
      u[i + 1] = shuffle<0xee>(t[i], t[i + 2]);
      u[i + 2] = shuffle<0x44>(t[i + 1], t[i + 3]);
      u[i + 3] = shuffle<0xee>(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
      r[i].raw = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
      r[i + 8].raw = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
      r[i + 4].raw = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
      r[i + 12].raw = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
  }

 private:
  static __mmask16 firstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static Vec widen(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
  }
  static Vec toFloats(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }
  template <int kControl>
  static __m512 shuffle(__m512 a, __m512 b) {
    return _mm512_shuffle_ps(a, b, kControl);
  }
};

}  // namespace
}  // namespace sdpa
