// Storage dtype -> bfloat16 tiles (simd/tile_unit.h), with kSlices slices of each number. Each packer notes whether
// all it saw is in the range of the tile products.
#pragma once

#include "../simd/pairs_avx512.h"
#include "../simd/tile_unit.h"
#include "pack.h"

namespace sdpa {
namespace {

// 32 channels of a row, as tile rows hold them: channel pairs side by side, a row for each slice.
template <int kSlices>
struct TileRow {
  Pairs slice[kSlices];
};

template <int kSlices>
inline TileRow<kSlices> zeroRow() {
  TileRow<kSlices> row;
  for (int i = 0; i < kSlices; ++i) row.slice[i] = Pairs::zero();
  return row;
}

// The first n numbers of a row, times scale; zeros behind them.
template <int kSlices, class T>
SDPA_ALWAYS_INLINE TileRow<kSlices> loadRow(const T* p, int64_t n, Vec scale, RangeCheck& range) {
  constexpr int W = Vec::kWidth;
  const Vec low = loadUpTo(p, n) * scale;
  const Vec high = n > W ? loadUpTo(p + W, n - W) * scale : Vec::zero();
  range.see(low);
  range.see(high);
  const Slices<kSlices> lowSlices = Slices<kSlices>::of(low), highSlices = Slices<kSlices>::of(high);
  TileRow<kSlices> row;
SDPA_UNROLL
  for (int i = 0; i < kSlices; ++i) row.slice[i] = Slices<kSlices>::join(lowSlices, highSlices, i);
  return row;
}

// One slice of bfloat16 numbers is the numbers themselves: they are not scaled.
template <>
SDPA_ALWAYS_INLINE TileRow<1> loadRow<1, BFloat16>(const BFloat16* p, int64_t n, Vec, RangeCheck& range) {
  TileRow<1> row;
  row.slice[0] = n >= kTileEdge ? Pairs::load(p) : Pairs::loadPartial(p, static_cast<int>(n));
  range.see(row.slice[0]);
  return row;
}

// Asks for 32 numbers; K and V are read ahead line by line, as decode.h does it.
template <class T>
SDPA_ALWAYS_INLINE void prefetchRow(const T* p) {
  SDPA_PREFETCH_READ(p);
  if (sizeof(T) == 4) SDPA_PREFETCH_READ(p + Vec::kWidth);
}

constexpr int64_t kPackAhead = 64;  // keys

template <int kSlices>
constexpr int64_t tileBlockElements() {
  return 2 * kSlices * kTileElements;
}

// K: A tiles of natural rows. Keys [begin, end), begin a multiple of kTileEdge, filled with zeros to whole tiles; k is
// the row of `begin`.
template <int kSlices, class T>
inline void packKeyTiles(const T* k, int64_t rowStride, int64_t begin, int64_t end, int64_t headDim, uint16_t* tiles,
                         RangeCheck& range) {
  const int64_t steps = roundUp(headDim, kTileEdge) / kTileEdge;
  for (int64_t key = begin; key < roundUp(end, kTileEdge); ++key) {
    uint16_t* place = tiles + key / kTileEdge * steps * tileBlockElements<kSlices>() +
                      key % kTileEdge / 16 * (kSlices * kTileElements) + key % 16 * kTileEdge;
    const T* source = k + (key - begin) * rowStride;
    const Vec scale = Vec::broadcast(key < end ? rowScale(source, headDim) : 1.0f);
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t d = step * kTileEdge;
      const TileRow<kSlices> row = key < end ? loadRow<kSlices>(source + d, headDim - d, scale, range)
                                             : zeroRow<kSlices>();
      prefetchRow(source + kPackAhead * rowStride + d);
      for (int i = 0; i < kSlices; ++i) row.slice[i].store(place + i * kTileElements);
      place += tileBlockElements<kSlices>();
    }
  }
}

// q: B tiles, a query row a lane. A null row gives zeros.
template <int kSlices, class T>
inline void packQueryTiles(const T* const* rows, int64_t headDim, float scale, uint16_t* tiles, RangeCheck& range) {
  const Vec factor = Vec::broadcast(scale);
  for (int64_t d = 0; d < headDim; d += kTileEdge) {
    for (int half = 0; half < 2; ++half) {
      Pairs block[kSlices][16];
      for (int r = 0; r < 16; ++r) {
        const T* row = rows[half * 16 + r];
        const TileRow<kSlices> loaded =
            row ? loadRow<kSlices>(row + d, headDim - d, factor, range) : zeroRow<kSlices>();
        for (int i = 0; i < kSlices; ++i) block[i][r] = loaded.slice[i];
      }
      for (int i = 0; i < kSlices; ++i) {
        Pairs::transpose(block[i]);
        for (int r = 0; r < 16; ++r) block[i][r].store(tiles + r * kTileEdge);
        tiles += kTileElements;
      }
    }
  }
}

// V: A tiles of channels, [valueDim / 32][kKeyBlock / 32] blocks; pairs of keys side by side. Keys [begin, end) as for K.
template <int kSlices, class T>
inline void packValueTiles(const T* v, int64_t rowStride, int64_t begin, int64_t end, int64_t valueDim, uint16_t* tiles,
                           RangeCheck& range) {
  constexpr int64_t kChannelBlock = kKeyBlock / kTileEdge * tileBlockElements<kSlices>();
  const auto load = [&](const T* row, int64_t d) {
    return loadRow<kSlices>(row + d, valueDim - d, Vec::broadcast(rowScale(row, valueDim)), range);
  };
  for (int64_t key = begin; key < end; key += kTileEdge) {
    for (int64_t d = 0; d < valueDim; d += kTileEdge) {
      Pairs low[kSlices][16], high[kSlices][16];
      for (int pair = 0; pair < 16; ++pair) {
        const int64_t even = key + 2 * pair;
        const T* row = v + (even - begin) * rowStride;
        const TileRow<kSlices> first = even < end ? load(row, d) : zeroRow<kSlices>();
        const TileRow<kSlices> second = even + 1 < end ? load(row + rowStride, d) : zeroRow<kSlices>();
        prefetchRow(row + kPackAhead * rowStride + d);
        prefetchRow(row + (kPackAhead + 1) * rowStride + d);
        for (int i = 0; i < kSlices; ++i) Pairs::zip(first.slice[i], second.slice[i], low[i][pair], high[i][pair]);
      }
      uint16_t* block = tiles + d / kTileEdge * kChannelBlock + key / kTileEdge * tileBlockElements<kSlices>();
      for (int i = 0; i < kSlices; ++i) {
        Pairs::transpose(low[i]);
        Pairs::transpose(high[i]);
        for (int j = 0; j < 16; ++j) {
          const int channel = Pairs::lowChannel(j);  // channel + 4 lies in the same half
          uint16_t* place = block + channel / 16 * (kSlices * kTileElements) + i * kTileElements + channel % 16 * kTileEdge;
          low[i][j].store(place);
          high[i][j].store(place + 4 * kTileEdge);
        }
      }
    }
  }
}

// Weights: B tiles, keys the depth. The weights of keys 2·pair and 2·pair + 1 of a step, in the lanes of a half.
template <int kSlices>
SDPA_ALWAYS_INLINE void storeWeightPair(const Slices<kSlices>& even, const Slices<kSlices>& odd, int64_t pair, int half,
                                        uint16_t* step) {
SDPA_UNROLL
  for (int i = 0; i < kSlices; ++i) {
    Slices<kSlices>::zip(even, odd, i).store(step + (half * kSlices + i) * kTileElements + pair * kTileEdge);
  }
}

}  // namespace
}  // namespace sdpa
