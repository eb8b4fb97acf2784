// The tile products on AMX (AMX-TILE, AMX-BF16): 2 x 2 accumulators, two tiles of A, two of B.
#pragma once

#include <immintrin.h>

#include "../compiler.h"
#include "tile_unit.h"

#if defined(SDPA_EMULATED_TILES)
#include "tiles_emulated.h"
#elif defined(__MINGW64__) && !defined(__clang__)
// GCC's macros pass the stride as a long, which has 32 bits on Windows and then indexes nothing.
#undef _tile_loadd
#undef _tile_stored
#define _tile_loadd(tile, base, stride)                               \
  __asm__ volatile("tileloadd\t(%0,%1,1), %%tmm" #tile ::"r"(base), \
                   "r"(static_cast<long long>(stride)))
#define _tile_stored(tile, base, stride)                               \
  __asm__ volatile("tilestored\t%%tmm" #tile ", (%0,%1,1)" ::"r"(base), \
                   "r"(static_cast<long long>(stride)) : "memory")
#endif

namespace sdpa {
namespace {

struct TileUnit {
  static constexpr int kProfitableProducts = 6;  // of slices; more would be slower than float32 FMAs

  static constexpr int kDecodeRows = 8;  // from so many rows on, decode by tiles is faster

  // Every thread configures its tiles before their first use, and releases them: a thread that holds live tiles pays
  // for 8 KiB more at each context switch. A constant: of a local variable GCC, whose intrinsic says that 8 bytes are read,
  // left the others unwritten where this was not inlined.
  static void begin() {
    struct alignas(64) Configuration {
      uint8_t palette, startRow, reserved[14];
      uint16_t columnBytes[16];
      uint8_t rows[16];
    };
    static constexpr Configuration kAllWhole = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&kAllWhole);
  }
  static void end() { _tile_release(); }

  // Four independent chains in registers, on the caller's data: AMX is slower on random numbers than on zeros.
  static double probe(int64_t iterations, const uint16_t* data, float* sink) {
    begin();
    loadA(data, kTileElements);
    loadB<2>(data, kTileElements);
    zero();
    for (int64_t i = 0; i < iterations; ++i) multiplyLoaded<2>();
    alignas(64) float c[256];
    _tile_stored(0, c, 64);
    end();
    *sink = c[0];
    return 4.0 * 2.0 * 16 * 16 * 32 * static_cast<double>(iterations);
  }

  template <class Cut>
  static void multiply(const TileProduct& product) {
    if (product.halves == 1) {
      multiplyHalves<Cut, 1>(product);
    } else {
      multiplyHalves<Cut, 2>(product);
    }
  }

 private:
  static constexpr int kRowBytes = kTileEdge * sizeof(float);

  // Accumulators: 0 and 1 the upper result rows, 2 and 3 the lower; 4, 5 tiles of A; 6, 7 of B.
  template <class Cut, int kHalves>
  static SDPA_ALWAYS_INLINE void multiplyHalves(const TileProduct& product) {
    constexpr int kHalf = Cut::kSlices * kTileElements;
    finishWriting();
    if (product.accumulate) {
      loadC<kHalves>(product.c);
    } else {
      zero();
    }
    if constexpr (Cut::kProducts > 1) {
      for (int64_t step = 0; step < product.steps; ++step) {
        smallProducts<Cut, kHalves, 0>(product.a + step * product.aStep, product.b + step * product.bStep);
      }
    }
    for (int64_t step = 0; step < product.steps; ++step) {
      loadA(product.a + step * product.aStep, kHalf);
      loadB<kHalves>(product.b + step * product.bStep, kHalf);
      multiplyLoaded<kHalves>();
    }
    storeC<kHalves>(product.c);
  }

  template <class Cut, int kHalves, int kIndex>
  static SDPA_ALWAYS_INLINE void smallProducts(const uint16_t* a, const uint16_t* b) {
    if constexpr (kIndex + 1 < Cut::kProducts) {
      constexpr SlicePair pair = Cut::kSmall[kIndex];
      constexpr SlicePair before = kIndex ? Cut::kSmall[kIndex - 1] : SlicePair{-1, -1};
      constexpr int kHalf = Cut::kSlices * kTileElements;
      if constexpr (pair.a != before.a) loadA(a + pair.a * kTileElements, kHalf);
      if constexpr (pair.b != before.b) loadB<kHalves>(b + pair.b * kTileElements, kHalf);
      multiplyLoaded<kHalves>();
      smallProducts<Cut, kHalves, kIndex + 1>(a, b);
    }
  }

  // GCC's macros don't say that a tile is loaded from memory, which must be written by then.
  static SDPA_ALWAYS_INLINE void finishWriting() {
#if defined(__GNUC__)
    __asm__ volatile("" ::: "memory");
#endif
  }

  static SDPA_ALWAYS_INLINE void zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  template <int kHalves>
  static SDPA_ALWAYS_INLINE void loadC(const float* c) {
    _tile_loadd(0, c, kRowBytes);
    _tile_loadd(2, c + 16 * kTileEdge, kRowBytes);
    if constexpr (kHalves == 2) {
      _tile_loadd(1, c + 16, kRowBytes);
      _tile_loadd(3, c + 16 * kTileEdge + 16, kRowBytes);
    }
  }
  template <int kHalves>
  static SDPA_ALWAYS_INLINE void storeC(float* c) {
    _tile_stored(0, c, kRowBytes);
    _tile_stored(2, c + 16 * kTileEdge, kRowBytes);
    if constexpr (kHalves == 2) {
      _tile_stored(1, c + 16, kRowBytes);
      _tile_stored(3, c + 16 * kTileEdge + 16, kRowBytes);
    }
  }
  static SDPA_ALWAYS_INLINE void loadA(const uint16_t* a, int64_t half) {
    _tile_loadd(4, a, 64);
    _tile_loadd(5, a + half, 64);
  }
  template <int kHalves>
  static SDPA_ALWAYS_INLINE void loadB(const uint16_t* b, int64_t half) {
    _tile_loadd(6, b, 64);
    if constexpr (kHalves == 2) _tile_loadd(7, b + half, 64);
  }
  template <int kHalves>
  static SDPA_ALWAYS_INLINE void multiplyLoaded() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kHalves == 2) {
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
};

}  // namespace
}  // namespace sdpa
