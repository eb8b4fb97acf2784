// Ceilings of this core, measured with the same Vec as the kernels: what the bench divides by.
#pragma once

#include "tile.h"

namespace sdpa {
namespace {

// Independent FMA chains in registers, as many as the register tile of gemm holds. Returns the FLOPs done.
inline double fmaProbe(int64_t iterations, float* sink) {
  constexpr int kChains = kGemmRows * kTileVecs;
  Vec acc[kChains];
SDPA_UNROLL
  for (int i = 0; i < kChains; ++i) acc[i] = Vec::broadcast(1.0f + static_cast<float>(i) * 0.01f);
  const Vec x = Vec::broadcast(0.999f), y = Vec::broadcast(0.0013f);
  for (int64_t n = 0; n < iterations; ++n) {
SDPA_UNROLL
    for (int i = 0; i < kChains; ++i) acc[i] = Vec::fma(acc[i], x, y);
  }
  Vec sum = Vec::zero();
  for (int i = 0; i < kChains; ++i) sum = sum + acc[i];
  sum.storePartial(sink, 1);
  return 2.0 * Vec::kWidth * kChains * static_cast<double>(iterations);
}

// The sum of a buffer: a plain streaming read.
inline float readProbe(const float* data, size_t count) {
  constexpr int kStreams = 8;
  Vec acc[kStreams];
  for (int i = 0; i < kStreams; ++i) acc[i] = Vec::zero();
  for (size_t i = 0; i + kStreams * Vec::kWidth <= count; i += kStreams * Vec::kWidth) {
SDPA_UNROLL
    for (int j = 0; j < kStreams; ++j) acc[j] = acc[j] + Vec::load(data + i + static_cast<size_t>(j) * Vec::kWidth);
  }
  Vec sum = Vec::zero();
  for (int i = 0; i < kStreams; ++i) sum = sum + acc[i];
  float lanes[Vec::kWidth], total = 0.0f;
  sum.store(lanes);
  for (float lane : lanes) total += lane;
  return total;
}

}  // namespace
}  // namespace sdpa
