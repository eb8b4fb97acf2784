// Exact sums of products of int16 pairs: vpdpwssd (AVX-512 VNNI).
#pragma once

#include "pairs_avx512.h"

namespace sdpa {
namespace {

// 16 whole numbers of 32 bits.
struct Wholes {
  __m512i raw;
  static Wholes zero() { return {_mm512_setzero_si512()}; }
  // As Vec::reduceAdd4; the sums become float32 at the end.
  static void reduceAdd4(Wholes a, Wholes b, Wholes c, Wholes d, float* out) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a.raw, b.raw), _mm512_unpackhi_epi32(a.raw, b.raw));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c.raw, d.raw), _mm512_unpackhi_epi32(c.raw, d.raw));
    const __m512i abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti32x8_epi32(abcd, 1));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_ps(out, _mm_cvtepi32_ps(sums));
  }
};

struct IntegerUnit {
  // sum[i] + a[2i] b[2i] + a[2i + 1] b[2i + 1]
  static Wholes multiplyAdd(Pairs a, Pairs b, Wholes sum) { return {_mm512_dpwssd_epi32(sum.raw, a.raw, b.raw)}; }
  static Vec toFloats(Wholes sum) { return {_mm512_cvtepi32_ps(sum.raw)}; }
  // 32 numbers of a row, or its first n.
  static Pairs load(const int8_t* p) {
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Pairs loadPartial(const int8_t* p, int n) {
    return {_mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(static_cast<__mmask32>((uint64_t{1} << n) - 1), p))};
  }
  // To the nearest whole numbers, which int16 holds; halves to even.
  static void storeRounded(Vec x, int16_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.raw)));
  }
};

}  // namespace
}  // namespace sdpa
