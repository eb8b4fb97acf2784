// The register-blocked product under both QK^T and PV.
#pragma once

#include "tile.h"

namespace sdpa {
namespace {

template <int kRows, int kVecs>
struct Accumulators {
  Vec raw[kRows][kVecs];
};

// acc[r][v] = sum over depth of a[depth * aStride + r] * b[depth * bStride + v * width ...]; one chain a sum.
template <int kRows, int kVecs, class B>
inline __attribute__((always_inline)) void multiply(const float* a, int64_t aStride, const B* b, int64_t bStride,
                                                    int64_t depth, Accumulators<kRows, kVecs>& acc) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) acc.raw[r][v] = Vec::zero();
  }
  for (int64_t i = 0; i < depth; ++i) {
    Vec bVec[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) bVec[v] = Vec::load(b + v * Vec::kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec aVec = Vec::broadcast(a[r]);
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) acc.raw[r][v] = Vec::fma(aVec, bVec[v], acc.raw[r][v]);
    }
    a += aStride;
    b += bStride;
  }
}

// How a product meets what its destination holds.
enum class Update { kStore, kAdd, kScaleAndAdd };

// c[r][lanes] = acc | c + acc | c * factor[lane] + acc. c has kVecs * width lanes a row.
template <int kRows, int kVecs>
inline __attribute__((always_inline)) void writeBack(const Accumulators<kRows, kVecs>& acc, Update update,
                                                     const float* factor, float* c) {
  constexpr int W = Vec::kWidth;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      float* place = c + (r * kVecs + v) * W;
      Vec sum = acc.raw[r][v];
      if (update == Update::kAdd) sum = Vec::load(place) + sum;
      if (update == Update::kScaleAndAdd) sum = Vec::fma(Vec::load(place), Vec::load(factor + v * W), sum);
      sum.store(place);
    }
  }
}

// One operand of gemm: packed panels [rows / kPanel][depth][kPanel], panelStride floats apart.
struct Panels {
  const float* data;
  int64_t panelStride;
};

// c[row][lanes] (update) panel rows [rowBegin, rowEnd) x b[depth][lanes]. Both bounds are multiples of kGemmRows. Depth
// is summed in chains of at most kDepthBlock; update and factor apply once.
template <int kVecs>
inline void gemmRows(Panels panels, int64_t rowBegin, int64_t rowEnd, const float* b, int64_t depth, Update update,
                     const float* factor, float* c) {
  constexpr int lanes = kVecs * Vec::kWidth;
  for (int64_t d = 0; d < depth; d += kDepthBlock) {
    const int64_t n = minimum(kDepthBlock, depth - d);
    for (int64_t r = rowBegin; r < rowEnd; r += kGemmRows) {
      Accumulators<kGemmRows, kVecs> acc;
      const float* a = panels.data + (r / kPanel) * panels.panelStride + d * kPanel + r % kPanel;
      multiply(a, kPanel, b + d * lanes, lanes, n, acc);
      writeBack(acc, d == 0 ? update : Update::kAdd, factor, c + r * lanes);
    }
  }
}

// The same for a tile of 1 to kTileVecs vectors of lanes.
inline void gemm(int vecs, Panels panels, int64_t rowBegin, int64_t rowEnd, const float* b, int64_t depth,
                 Update update, const float* factor, float* c) {
  if (vecs == 1) gemmRows<1>(panels, rowBegin, rowEnd, b, depth, update, factor, c);
  if (vecs == 2) gemmRows<2>(panels, rowBegin, rowEnd, b, depth, update, factor, c);
  if (vecs == 3) gemmRows<3>(panels, rowBegin, rowEnd, b, depth, update, factor, c);
}

}  // namespace
}  // namespace sdpa
