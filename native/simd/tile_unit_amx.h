// The tile products on AMX (AMX-TILE, AMX-BF16): 2 x 2 accumulators, two tiles of A, two of B.
#pragma once

#include <immintrin.h>

#include "../compiler.h"
#include "tile_unit.h"

namespace sdpa {
namespace {

struct TileUnit {
  static constexpr int kProfitableProducts = 6;  // of slices; more would be slower than float32 FMAs

  // Every thread configures its tiles before their first use, and releases them: a thread that holds live tiles pays
  // for 8 KiB more at each context switch.
  static void begin() {
    struct alignas(64) {
      uint8_t palette = 1, startRow = 0, reserved[14] = {};
      uint16_t columnBytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  static void end() { _tile_release(); }

  // Four independent chains in registers, on the caller's data: AMX is slower on random numbers than on zeros.
  static double probe(int64_t iterations, const uint16_t* data, float* sink) {
    begin();
    loadA(data, kTileElements);
    loadB(data, kTileElements);
    zero();
    for (int64_t i = 0; i < iterations; ++i) multiplyLoaded();
    alignas(64) float c[256];
    _tile_stored(0, c, 64);
    end();
    *sink = c[0];
    return 4.0 * 2.0 * 16 * 16 * 32 * static_cast<double>(iterations);
  }

  template <class Cut>
  static void multiply(const TileProduct& product) {
    constexpr int kHalf = Cut::kSlices * kTileElements;
    constexpr int kRowBytes = kTileEdge * sizeof(float);
    float* c = product.c;
    if (product.accumulate) {
      _tile_loadd(0, c, kRowBytes);
      _tile_loadd(1, c + 16, kRowBytes);
      _tile_loadd(2, c + 16 * kTileEdge, kRowBytes);
      _tile_loadd(3, c + 16 * kTileEdge + 16, kRowBytes);
    } else {
      zero();
    }
    if constexpr (Cut::kProducts > 1) {
      for (int64_t step = 0; step < product.steps; ++step) {
        const uint16_t* a = product.a + step * product.aStep;
        const uint16_t* b = product.b + step * product.bStep;
        smallProducts<Cut, 0>(a, b);
      }
    }
    for (int64_t step = 0; step < product.steps; ++step) {
      const uint16_t* a = product.a + step * product.aStep;
      const uint16_t* b = product.b + step * product.bStep;
      loadA(a, kHalf);
      loadB(b, kHalf);
      multiplyLoaded();
    }
    _tile_stored(0, c, kRowBytes);
    _tile_stored(1, c + 16, kRowBytes);
    _tile_stored(2, c + 16 * kTileEdge, kRowBytes);
    _tile_stored(3, c + 16 * kTileEdge + 16, kRowBytes);
  }

 private:
  static SDPA_ALWAYS_INLINE void zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  static SDPA_ALWAYS_INLINE void loadA(const uint16_t* a, int64_t half) {
    _tile_loadd(4, a, 64);
    _tile_loadd(5, a + half, 64);
  }
  static SDPA_ALWAYS_INLINE void loadB(const uint16_t* b, int64_t half) {
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + half, 64);
  }
  static SDPA_ALWAYS_INLINE void multiplyLoaded() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }

  template <class Cut, int kIndex>
  static SDPA_ALWAYS_INLINE void smallProducts(const uint16_t* a, const uint16_t* b) {
    if constexpr (kIndex + 1 < Cut::kProducts) {
      constexpr SlicePair pair = Cut::kSmall[kIndex];
      constexpr SlicePair before = kIndex ? Cut::kSmall[kIndex - 1] : SlicePair{-1, -1};
      constexpr int kHalf = Cut::kSlices * kTileElements;
      if constexpr (pair.a != before.a) loadA(a + pair.a * kTileElements, kHalf);
      if constexpr (pair.b != before.b) loadB(b + pair.b * kTileElements, kHalf);
      multiplyLoaded();
      smallProducts<Cut, kIndex + 1>(a, b);
    }
  }
};

}  // namespace
}  // namespace sdpa
