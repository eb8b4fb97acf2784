// The register-blocked product under both QK^T and PV.
#pragma once

#include "ahead.h"

namespace sdpa {
namespace {

template <int kRows, int kVecs>
struct Accumulators {
  Vec raw[kRows][kVecs];
};

// acc[r][v] = sum over depth of a[depth * aStride + r] * b[depth * bStride + v * width ...]; one chain a sum.
// onStep(b) runs once a step, with the row of b in use.
template <int kRows, int kVecs, class B, class OnStep>
SDPA_ALWAYS_INLINE void multiply(const float* a, int64_t aStride, const B* b, int64_t bStride,
                                                    int64_t depth, Accumulators<kRows, kVecs>& acc, OnStep onStep) {
SDPA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SDPA_UNROLL
    for (int v = 0; v < kVecs; ++v) acc.raw[r][v] = Vec::zero();
  }
  for (int64_t i = 0; i < depth; ++i) {
    Vec bVec[kVecs];
SDPA_UNROLL
    for (int v = 0; v < kVecs; ++v) bVec[v] = Vec::load(b + v * Vec::kWidth);
    onStep(b);
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec aVec = Vec::broadcast(a[r]);
SDPA_UNROLL
      for (int v = 0; v < kVecs; ++v) acc.raw[r][v] = Vec::fma(aVec, bVec[v], acc.raw[r][v]);
    }
    a += aStride;
    b += bStride;
  }
}

// How a product meets what its destination holds.
enum class Update { kStore, kAdd, kScaleAndAdd };

// acc = c[r][lanes] = acc | c + acc | c * factor[lane] + acc. c has kVecs * width lanes a row.
template <int kRows, int kVecs>
SDPA_ALWAYS_INLINE void writeBack(Accumulators<kRows, kVecs>& acc, Update update, const float* factor, float* c) {
  constexpr int W = Vec::kWidth;
SDPA_UNROLL
  for (int r = 0; r < kRows; ++r) {
SDPA_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      float* place = c + (r * kVecs + v) * W;
      Vec sum = acc.raw[r][v];
      if (update == Update::kAdd) sum = Vec::load(place) + sum;
      if (update == Update::kScaleAndAdd) sum = Vec::fma(Vec::load(place), Vec::load(factor + v * W), sum);
      sum.store(place);
      acc.raw[r][v] = sum;
    }
  }
}

// maxima[lane] = the largest of itself and its lane of acc; a NaN is passed over.
template <int kRows, int kVecs>
SDPA_ALWAYS_INLINE void raiseMaxima(const Accumulators<kRows, kVecs>& acc, float* maxima) {
SDPA_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    Vec high = Vec::load(maxima + v * Vec::kWidth);
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) high = Vec::max(acc.raw[r][v], high);
    high.store(maxima + v * Vec::kWidth);
  }
}

// c[row][lanes] (update) panels[row][depth] x b[depth][lanes], for rows [rowBegin, rowEnd), multiples of kGemmRows. The
// depth is summed in chains of at most `chain`, which bounds rounding; update applies once.
struct Product {
  const float* panels;  // [rows / kPanel][depth][kPanel], panelStride floats from panel to panel
  int64_t panelStride;
  int64_t rowBegin, rowEnd;
  const float* b;
  int64_t depth, chain;
  Update update;
  const float* factor;  // [lanes]; for kScaleAndAdd
  float* c;
  Ahead* ahead = nullptr;   // asked for meanwhile
  float* maxima = nullptr;  // [lanes]; raised to the largest of each lane of c, where wanted
};

template <int kVecs>
inline void gemmRows(const Product& product) {
  constexpr int lanes = kVecs * Vec::kWidth;
  for (int64_t d = 0; d < product.depth; d += product.chain) {
    const int64_t n = minimum(product.chain, product.depth - d);
    const float* b = product.b + d * lanes;
    for (int64_t r = product.rowBegin; r < product.rowEnd; r += kGemmRows) {
      Accumulators<kGemmRows, kVecs> acc;
      const float* a = product.panels + (r / kPanel) * product.panelStride + d * kPanel + r % kPanel;
      if (product.ahead) product.ahead->step();
      multiply(a, kPanel, b, lanes, n, acc, [](const float*) {});
      writeBack(acc, d == 0 ? product.update : Update::kAdd, product.factor, product.c + r * lanes);
      if (product.maxima && d + n == product.depth) raiseMaxima(acc, product.maxima);
    }
  }
}

// Register tiles that a product computes: as often does `ahead` take a step.
inline int64_t registerTiles(const Product& product) {
  return (product.depth + product.chain - 1) / product.chain * ((product.rowEnd - product.rowBegin) / kGemmRows);
}

// For a tile of 1 to kTileVecs vectors of lanes.
inline void gemm(int vecs, const Product& product) {
  if (vecs == 1) gemmRows<1>(product);
  if (vecs == 2) gemmRows<2>(product);
  if (vecs == 3) gemmRows<3>(product);
}

}  // namespace
}  // namespace sdpa
