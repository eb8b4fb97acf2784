// The tile products on AVX-512 BF16: vdpbf16ps, twice the FMA rate on Zen 4 and 5 (on Intel's cores it is slower than
// FMAs, and AMX is there).
#pragma once

#include <immintrin.h>
#include <string.h>

#include "../compiler.h"
#include "tile_unit.h"

namespace sdpa {
namespace {

struct TileUnit {
  static constexpr int kProfitableProducts = 1;  // of slices; more would be slower than float32 FMAs

  static constexpr int kDecodeRows = 12;  // from so many rows on, decode by tiles is faster

  static void begin() {}
  static void end() {}

  static double probe(int64_t iterations, const uint16_t* data, float* sink) {
    __m512 acc[kRows][2];
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = _mm512_set1_ps(static_cast<float>(r));
    const __m512bh a = pairsAt(data), b = pairsAt(data + kTileEdge);
    for (int64_t i = 0; i < iterations; ++i) {
SDPA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        acc[r][0] = _mm512_dpbf16_ps(acc[r][0], a, b);
        acc[r][1] = _mm512_dpbf16_ps(acc[r][1], b, a);
      }
    }
    __m512 sum = _mm512_setzero_ps();
    for (int r = 0; r < kRows; ++r) sum = _mm512_add_ps(sum, _mm512_add_ps(acc[r][0], acc[r][1]));
    *sink = _mm512_cvtss_f32(sum);
    return 2.0 * kRows * 2 * 32 * static_cast<double>(iterations);
  }

  template <class Cut>
  static void multiply(const TileProduct& product) {
    if (product.halves == 1) {
      for (int row = 0; row < kTileEdge; row += 2 * kRows) multiplyRows<Cut, 2 * kRows, 1>(product, row);
    } else {
      for (int row = 0; row < kTileEdge; row += kRows) multiplyRows<Cut, kRows, 2>(product, row);
    }
  }

 private:
  static constexpr int kRows = 8;  // x 2 vectors of lanes: a register tile

  template <class Cut, int kCount, int kHalves>
  static SDPA_ALWAYS_INLINE void multiplyRows(const TileProduct& product, int row) {
    __m512 acc[kCount][kHalves];
    float* c = product.c + row * kTileEdge;
SDPA_UNROLL
    for (int r = 0; r < kCount; ++r) {
SDPA_UNROLL
      for (int v = 0; v < kHalves; ++v) {
        acc[r][v] = product.accumulate ? _mm512_loadu_ps(c + r * kTileEdge + v * 16) : _mm512_setzero_ps();
      }
    }
    const uint16_t* a = product.a + (row / 16) * Cut::kSlices * kTileElements + (row % 16) * kTileEdge;
    for (int i = 0; i + 1 < Cut::kProducts; ++i) {
      const SlicePair pair = Cut::kSmall[i];
      multiplySlices<Cut>(product, a + pair.a * kTileElements, product.b + pair.b * kTileElements, acc);
    }
    multiplySlices<Cut>(product, a, product.b, acc);
SDPA_UNROLL
    for (int r = 0; r < kCount; ++r) {
SDPA_UNROLL
      for (int v = 0; v < kHalves; ++v) _mm512_storeu_ps(c + r * kTileEdge + v * 16, acc[r][v]);
    }
  }

  template <class Cut, int kCount, int kHalves>
  static SDPA_ALWAYS_INLINE void multiplySlices(const TileProduct& product, const uint16_t* a, const uint16_t* b,
                                                __m512 (&acc)[kCount][kHalves]) {
    for (int64_t step = 0; step < product.steps; ++step) {
      for (int pair = 0; pair < 16; ++pair) {
        __m512bh lanes[kHalves];
SDPA_UNROLL
        for (int v = 0; v < kHalves; ++v) lanes[v] = pairsAt(b + v * Cut::kSlices * kTileElements + pair * kTileEdge);
SDPA_UNROLL
        for (int r = 0; r < kCount; ++r) {
          const __m512bh both = repeated(a + r * kTileEdge + 2 * pair);
SDPA_UNROLL
          for (int v = 0; v < kHalves; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], both, lanes[v]);
        }
      }
      a += product.aStep;
      b += product.bStep;
    }
  }

  static SDPA_ALWAYS_INLINE __m512bh pairsAt(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static SDPA_ALWAYS_INLINE __m512bh repeated(const uint16_t* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
};

}  // namespace
}  // namespace sdpa
