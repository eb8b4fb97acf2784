// Scores of a few query rows and a block of keys, K in place: register tiles of up to kDecodeRows rows x 2 or 4 keys, a
// sum in each lane.
#pragma once

#include "decode_products.h"

namespace sdpa {
namespace {

constexpr int kDecodeRows = 6;  // rows of a register tile, at most

// Keys of a register tile. Two where memory is the limit: four rows apart, float32 reads are slower on Zen 4.
template <class Products>
constexpr int keyGroup(int rows) {
  return Vec::kRegisters < 32 || (sizeof(typename Products::Stored) == 4 && rows <= 4) ? 2 : 4;
}

template <int kCount>
struct RowCount {
  static constexpr int kRows = kCount;
};

// fn(RowCount<n>, first row) for each register tile: as few as there can be, as even as they can be.
template <class Fn>
inline void forEachRowGroup(int64_t rows, Fn fn) {
  int64_t row = 0;
  for (int64_t groups = (rows + kDecodeRows - 1) / kDecodeRows; groups > 0; --groups) {
    const int64_t n = (rows - row + groups - 1) / groups;
    if (n == 1) fn(RowCount<1>{}, row);
    if (n == 2) fn(RowCount<2>{}, row);
    if (n == 3) fn(RowCount<3>{}, row);
    if (n == 4) fn(RowCount<4>{}, row);
    if (n == 5) fn(RowCount<5>{}, row);
    if (n == 6) fn(RowCount<6>{}, row);
    row += n;
  }
}

// scores[row * kDecodeBlock + key] from horizontal sums of acc[row][key].
template <int kRows, int kKeys, class Sum>
SDPA_ALWAYS_INLINE void storeSums(const Sum (&acc)[kRows][kKeys], float* scores) {
  if constexpr (kKeys == 4) {
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      Sum::reduceAdd4(acc[r][0], acc[r][1], acc[r][2], acc[r][3], scores + r * kDecodeBlock);
    }
  } else {
SDPA_UNROLL
    for (int r = 0; r < kRows; r += 2) {
      const int other = r + 1 < kRows ? r + 1 : r;
      float sums[4];
      Sum::reduceAdd4(acc[r][0], acc[r][1], acc[other][0], acc[other][1], sums);
      memcpy(scores + r * kDecodeBlock, sums, 2 * sizeof(float));
      memcpy(scores + other * kDecodeBlock, sums + 2, 2 * sizeof(float));
    }
  }
}

// One register tile. k: row of its first key; offsets[j] elements to the j-th. q: [step][kRows][kStep].
template <int kRows, int kKeys, class Products>
SDPA_ALWAYS_INLINE void scoreTile(const typename Products::Stored* k, const int64_t (&offsets)[kKeys], int64_t headDim,
                                  const typename Products::Query* q, LineCursor lines, float* scores) {
  using Stored = typename Products::Stored;
  using Operand = typename Products::Operand;
  constexpr int64_t kStep = Products::kStep;
  constexpr int64_t kLine = kLineBytes / static_cast<int64_t>(sizeof(Stored));
  typename Products::Sum acc[kRows][kKeys];
SDPA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SDPA_UNROLL
    for (int j = 0; j < kKeys; ++j) acc[r][j] = Products::Sum::zero();
  }
  const auto accumulate = [&](auto load) {
    Operand x[kKeys];
SDPA_UNROLL
    for (int j = 0; j < kKeys; ++j) x[j] = load(k + offsets[j]);
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Operand y = Products::loadQuery(q + r * kStep);
SDPA_UNROLL
      for (int j = 0; j < kKeys; ++j) acc[r][j] = Products::multiplyAdd(x[j], y, acc[r][j]);
    }
    k += kStep;
    q += kRows * kStep;
  };
  const auto whole = [](const Stored* p) { return Products::load(p); };
  for (int64_t line = headDim / kLine; line > 0; --line) {
SDPA_UNROLL
    for (int j = 0; j < kKeys; ++j) SDPA_PREFETCH_READ(lines.next + j * lines.across);
    lines.next += lines.step;
SDPA_UNROLL
    for (int64_t i = 0; i < kLine; i += kStep) accumulate(whole);
  }
  const int64_t behind = headDim % kLine;
  for (int64_t step = behind / kStep; step > 0; --step) accumulate(whole);
  const int rest = static_cast<int>(behind % kStep);
  if (rest) accumulate([rest](const Stored* p) { return Products::loadPartial(p, rest); });
  storeSums<kRows, kKeys>(acc, scores);
}

// All keys of the block against the rows of one register tile. The last group repeats its last key; nothing past it is
// read.
template <int kRows, class Products>
inline void scoreRows(RowCount<kRows>, const KeyBlock<Products>& block, const typename Products::Query* q,
                      const Lookahead& ahead, float* scores) {
  constexpr int kKeys = keyGroup<Products>(kRows);
  const typename Products::Stored* k = block.k;
  LineCursor lines{reinterpret_cast<const char*>(k), 0, 0};  // at hand already
  int64_t linesAGroup = 0;
  if (ahead.next) {
    lines = {ahead.next, ahead.hasGaps() ? ahead.rowStride : kLineBytes, ahead.hasGaps() ? kLineBytes : kKeys * kLineBytes};
    linesAGroup = kKeys * (ahead.hasGaps() ? ahead.rowStride : ahead.rowBytes);
    ahead.askForRest(block.count);
  }
  for (int64_t key = 0; key < block.count; key += kKeys) {
    int64_t offsets[kKeys] = {};
    for (int j = 1; j < kKeys; ++j) offsets[j] = minimum(j, block.count - 1 - key) * block.stride;
    scoreTile<kRows, kKeys, Products>(k, offsets, block.headDim, q, lines, scores + key);
    k += kKeys * block.stride;
    lines.next += linesAGroup;
  }
}

// scores[row][0 .. count) = q row . K rows. q: row groups of depth floats a row, each [step][rows of the group][kStep].
template <class Products>
inline void scoreBlock(const KeyBlock<Products>& block, const typename Products::Query* q, int64_t depth, int64_t rows,
                       const Lookahead& ahead, float* scores) {
  forEachRowGroup(rows, [&](auto group, int64_t row) {
    scoreRows(group, block, q + row * depth, row == 0 ? ahead : Lookahead::none(), scores + row * kDecodeBlock);
  });
}

}  // namespace
}  // namespace sdpa
