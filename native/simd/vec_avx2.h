// Vec over one 256-bit register (AVX2, FMA, F16C).
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "../compiler.h"
#include "../problem.h"

namespace sdpa {
namespace {

struct Mask {
  __m256 raw;
  friend Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.raw, b.raw)}; }
  friend Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.raw, b.raw)}; }
};

struct Vec {
  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;
  __m256 raw;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const Float16* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec load(const BFloat16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Vec load(const int8_t* p) { return toFloats(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
  // The first n < kWidth elements, zeros behind them; nothing past them is read.
  static Vec loadPartial(const float* p, int n) { return {_mm256_maskload_ps(p, firstLanes(n))}; }
  static Vec loadPartial(const Float16* p, int n) { return {_mm256_cvtph_ps(loadHalves(p, n))}; }
  static Vec loadPartial(const BFloat16* p, int n) { return widen(loadHalves(p, n)); }
  static Vec loadPartial(const int8_t* p, int n) {
    int64_t bytes = 0;
    memcpy(&bytes, p, static_cast<size_t>(n));
    return toFloats(_mm_cvtsi64_si128(bytes));
  }

  void store(float* p) const { _mm256_storeu_ps(p, raw); }
  // Rounded to nearest even; NaN stays NaN.
  void store(Float16* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(raw, _MM_FROUND_TO_NEAREST_INT));
  }
  void store(BFloat16* p) const {
    const __m256i bits = _mm256_castps_si256(raw), high = _mm256_srli_epi32(bits, 16);
    const __m256i half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i isNaN = _mm256_castps_si256(_mm256_cmp_ps(raw, raw, _CMP_UNORD_Q));
    const __m256i lanes = _mm256_blendv_epi8(rounded, quiet, isNaN);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
  }
  void storePartial(float* p, int n) const { _mm256_maskstore_ps(p, firstLanes(n), raw); }

  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.raw, b.raw)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.raw, b.raw)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.raw, b.raw)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.raw, b.raw)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)}; }
  // The larger; b where either is NaN.
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.raw, b.raw)}; }
  static Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.raw)}; }

  // 2^n for a whole n in [-127, 127]; n stands in the low bits of `shifted`, which is n + 1.5 * 2^23.
  struct Power {
    __m256 shifted;
  };
  // n = a * b rounded to a whole number, halves to even.
  static Power roundToPower(Vec a, Vec b) { return {_mm256_fmadd_ps(a.raw, b.raw, _mm256_set1_ps(12582912.0f))}; }
  static Vec exponentOf(Power power) { return {_mm256_sub_ps(power.shifted, _mm256_set1_ps(12582912.0f))}; }
  // a * 2^n, 0 for n = -127; NaN stays NaN.
  static Vec scaleBy(Vec a, Power power) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(power.shifted), 23);
    const __m256i bits = _mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23));
    return {_mm256_mul_ps(a.raw, _mm256_castsi256_ps(bits))};
  }
  static constexpr float kExpFloor = -88.0f;  // exp is 0 at and below it

  friend Mask operator<(Vec a, Vec b) { return {_mm256_cmp_ps(a.raw, b.raw, _CMP_LT_OQ)}; }
  friend Mask operator>=(Vec a, Vec b) { return {_mm256_cmp_ps(a.raw, b.raw, _CMP_GE_OQ)}; }
  friend Mask operator==(Vec a, Vec b) { return {_mm256_cmp_ps(a.raw, b.raw, _CMP_EQ_OQ)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.raw, a.raw, m.raw)}; }

  // The largest lane; none is NaN.
  static float reduceMax(Vec a) {
    const __m128 quads = _mm_max_ps(_mm256_castps256_ps128(a.raw), _mm256_extractf128_ps(a.raw, 1));
    const __m128 pairs = _mm_max_ps(quads, _mm_movehl_ps(quads, quads));
    return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehdup_ps(pairs)));
  }
  // Four horizontal sums to out[0..3].
  static void reduceAdd4(Vec a, Vec b, Vec c, Vec d, float* out) {
    const __m256 quads = _mm256_hadd_ps(_mm256_hadd_ps(a.raw, b.raw), _mm256_hadd_ps(c.raw, d.raw));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1)));
  }

  // r[i][j] <-> r[j][i]
  static void transpose(Vec (&r)[kWidth]) {
    __m256 t[8], u[8];
SDPA_UNROLL
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i].raw, r[i + 1].raw);
      t[i + 1] = _mm256_unpackhi_ps(r[i].raw, r[i + 1].raw);
    }
SDPA_UNROLL
    for (int i = 0; i < 8; i += 4) {
      u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
SDPA_UNROLL
    for (int i = 0; i < 4; ++i) {
      r[i].raw = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
      r[i + 4].raw = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
  }

 private:
  static Vec toFloats(__m128i bytes) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))}; }
  static __m256i firstLanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <class Half>
  static __m128i loadHalves(const Half* p, int n) {
    uint16_t bits[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    memcpy(bits, p, static_cast<size_t>(n) * sizeof(uint16_t));
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits));
  }
  static Vec widen(__m128i halves) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
  }
};

}  // namespace
}  // namespace sdpa
