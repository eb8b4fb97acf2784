// AMX-TILE and AMX-BF16 in software, as the Intel SDM describes them, so that the code for AMX is tested on machines without
// it: CMake's test builds compile isa/amx.cc over this there (SDPA_EMULATED_TILES). What a processor would fault on, or what
// would cost it, is a trap: tiles that are used before they are configured, configured twice, or never released.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "../compiler.h"

namespace sdpa {
namespace {

struct EmulatedTiles {
  static constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

  alignas(64) uint8_t tile[kTiles][kRows][kRowBytes];
  bool configured;

  static void check(bool valid) {
    if (!valid) __builtin_trap();
  }

  // All eight tiles whole: the one configuration that TileUnit uses.
  void configure(const void* memory) {
    const uint8_t* bytes = static_cast<const uint8_t*>(memory);
    check(!configured && bytes[0] == 1 && bytes[1] == 0);
    for (int i = 2; i < 16; ++i) check(bytes[i] == 0);
    for (int i = 0; i < kTiles; ++i) {
      uint16_t columnBytes;
      memcpy(&columnBytes, bytes + 16 + 2 * i, sizeof columnBytes);
      check(columnBytes == kRowBytes && bytes[48 + i] == kRows);
    }
    for (int i = 16 + 2 * kTiles; i < 48; ++i) check(bytes[i] == 0);
    for (int i = 48 + kTiles; i < 64; ++i) check(bytes[i] == 0);
    memset(tile, 0, sizeof tile);
    configured = true;
  }
  void release() {
    check(configured);
    configured = false;
  }
  void zero(int t) {
    check(configured);
    memset(tile[t], 0, sizeof tile[t]);
  }
  void load(int t, const void* base, int64_t stride) {
    check(configured);
    for (int row = 0; row < kRows; ++row) memcpy(tile[t][row], static_cast<const char*>(base) + row * stride, kRowBytes);
  }
  void store(int t, void* base, int64_t stride) const {
    check(configured);
    for (int row = 0; row < kRows; ++row) memcpy(static_cast<char*>(base) + row * stride, tile[t][row], kRowBytes);
  }

  // TDPBF16PS: even and odd depths are summed apart and then added; subnormal numbers are 0, coming and going.
  void multiply(int c, int a, int b) {
    check(configured);
    constexpr unsigned kZeroSubnormals = 0x8040;
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | kZeroSubnormals);
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    for (int row = 0; row < kRows; ++row) {
      __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
      for (int pair = 0; pair < kRows; ++pair) {
        int32_t both;
        memcpy(&both, tile[a][row] + 4 * pair, sizeof both);
        const __m512i x = _mm512_set1_epi32(both), y = _mm512_load_si512(tile[b][pair]);
        even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                               _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even);
        odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, upper)),
                              _mm512_castsi512_ps(_mm512_and_si512(y, upper)), odd);
      }
      float* sum = reinterpret_cast<float*>(tile[c][row]);
      _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(even, odd)));
    }
    _mm_setcsr(mode);
  }
};

static thread_local EmulatedTiles emulatedTiles;

}  // namespace
}  // namespace sdpa

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(memory) sdpa::emulatedTiles.configure(memory)
#define _tile_release() sdpa::emulatedTiles.release()
#define _tile_zero(t) sdpa::emulatedTiles.zero(t)
#define _tile_loadd(t, base, stride) sdpa::emulatedTiles.load(t, base, stride)
#define _tile_stored(t, base, stride) sdpa::emulatedTiles.store(t, base, stride)
#define _tile_dpbf16ps(c, a, b) sdpa::emulatedTiles.multiply(c, a, b)
