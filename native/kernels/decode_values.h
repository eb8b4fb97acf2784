// o = o * rescale + weights x V of a block of keys, V in place: register tiles of up to kDecodeRows rows x kValueVecs vectors
// of channels.
#pragma once

#include "decode_scores.h"

namespace sdpa {
namespace {

constexpr int kValueVecs = Vec::kRegisters >= 32 ? 4 : 2;
constexpr int64_t kValueBytes = 16 << 10;  // of V that stay in L1 while slices of channels take their turns
constexpr int64_t kMinValueKeys = 8;

// One register tile: channels [d, d + kVecs * width) of all keys of the block; `partial`: see loadValues.
template <int kRows, int kVecs, class Products>
SDPA_ALWAYS_INLINE void valueTile(const ValueBlock<Products>& block, int64_t d, int partial, LineCursor lines) {
  using Stored = typename Products::Stored;
  using Operand = typename Products::Operand;
  constexpr int W = Vec::kWidth;
  constexpr int kKeys = Products::kValueKeys;
  constexpr int64_t kLines = (kVecs * W * static_cast<int64_t>(sizeof(Stored)) * kKeys + kLineBytes - 1) / kLineBytes;
  typename Products::Sum acc[kRows][kVecs];
SDPA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SDPA_UNROLL
    for (int i = 0; i < kVecs; ++i) acc[r][i] = Products::Sum::zero();
  }
  const Stored* v = block.v + d;
  const typename Products::Weight *weights = block.weights, *end = weights + block.count;
  for (; weights < end; weights += kKeys) {
    Operand x[kVecs];
    Products::template loadValues<kVecs>(v, weights + 1 < end ? v + block.stride : v, partial, x);
SDPA_UNROLL
    for (int64_t i = 0; i < kLines; ++i) SDPA_PREFETCH_READ(lines.next + i * lines.across);
    lines.next += lines.step;
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Operand p = Products::broadcast(weights + r * kDecodeBlock);
SDPA_UNROLL
      for (int i = 0; i < kVecs; ++i) acc[r][i] = Products::multiplyAdd(p, x[i], acc[r][i]);
    }
    v += kKeys * block.stride;
  }
SDPA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Vec factor = Vec::broadcast(block.rescale[r]);
SDPA_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      float* place = block.o + r * block.channels + d + i * W;
      Vec sum = Products::total(acc[r][i]);
      if constexpr (Products::kHasUnits) sum = sum * Vec::broadcast(block.units[r]);
      Vec::fma(Vec::load(place), factor, sum).store(place);
    }
  }
}

// All channels, for the rows of one register tile.
template <int kRows, class Products>
inline void valueRows(RowCount<kRows>, const ValueBlock<Products>& block, const Lookahead& ahead) {
  constexpr int64_t kWide = kValueVecs * Vec::kWidth, kGranule = Products::kGranule;
  constexpr int kNarrowVecs = static_cast<int>(kGranule / Vec::kWidth);
  constexpr int64_t kWideBytes = kWide * static_cast<int64_t>(sizeof(*block.v));
  LineCursor lines{reinterpret_cast<const char*>(block.v), 0, 0};  // at hand already
  int64_t slice = 0;
  if (ahead.next) {
    lines = {ahead.next, kLineBytes, Products::kValueKeys * (ahead.hasGaps() ? ahead.rowStride : kWideBytes)};
    slice = ahead.hasGaps() ? kWideBytes : kWideBytes * block.count;
    ahead.askForRest(block.count);
  }
  int64_t d = 0;
  for (; d + kWide <= block.valueDim; d += kWide) {
    valueTile<kRows, kValueVecs>(block, d, 0, lines);
    lines.next += slice;
  }
  lines = {reinterpret_cast<const char*>(block.v), 0, 0};
  for (; d + kGranule <= block.valueDim; d += kGranule) valueTile<kRows, kNarrowVecs>(block, d, 0, lines);
  if (d < block.valueDim) valueTile<kRows, kNarrowVecs>(block, d, static_cast<int>(block.valueDim - d), lines);
}

// The whole block, for all rows, as many keys at a time as stay in L1. rescale is used up: ones afterwards.
template <class Products>
inline void addValues(ValueBlock<Products> block, int64_t rows, Lookahead ahead, float* rescale) {
  const int64_t rowBytes = maximum(block.valueDim * static_cast<int64_t>(sizeof(*block.v)), 1);
  const int64_t keys = block.count, most = maximum(kMinValueKeys, kValueBytes / rowBytes / kMinValueKeys * kMinValueKeys);
  block.rescale = rescale;
  for (int64_t key = 0; key < keys; key += most) {
    block.count = minimum(most, keys - key);
    forEachRowGroup(rows, [&](auto group, int64_t row) {
      valueRows(group, block.atRow(row), row == 0 ? ahead : Lookahead::none());
    });
    for (int64_t row = 0; row < rows; ++row) rescale[row] = 1.0f;
    block.v += block.count * block.stride;
    block.weights += block.count;
    if (ahead.next) ahead.next += block.count * ahead.rowStride;
  }
}

}  // namespace
}  // namespace sdpa
