// The softmax state of a tile of query rows: running maximum m and sum l, a lane a row (Milakov & Gimelshein 2018;
// FlashAttention-2 §3.1). The output o is rescaled by the product that follows.
#pragma once

#include "../simd/math.h"
#include "tile.h"

namespace sdpa {
namespace {

// m = -Infinity stands for "no key yet"; differences are then taken from 0, so that -Infinity - m stays -Infinity.
inline Vec finiteMaximum(Vec m) {
  return Vec::select(m == Vec::broadcast(kNegativeInfinity), Vec::zero(), m);
}

// The largest score of keys [begin, end) of one vector of lanes, `stride` floats a key, and of `before`. A NaN is passed
// over.
SDPA_ALWAYS_INLINE Vec maximumOf(const float* scores, int64_t stride, int64_t begin, int64_t end, Vec before) {
  Vec m0 = before, m1 = before, m2 = before, m3 = before;
  int64_t key = begin;
  for (; key + 4 <= end; key += 4) {
    const float* place = scores + key * stride;
    m0 = Vec::max(Vec::load(place), m0);
    m1 = Vec::max(Vec::load(place + stride), m1);
    m2 = Vec::max(Vec::load(place + 2 * stride), m2);
    m3 = Vec::max(Vec::load(place + 3 * stride), m3);
  }
  for (; key < end; ++key) m0 = Vec::max(Vec::load(scores + key * stride), m0);
  return Vec::max(Vec::max(m0, m1), Vec::max(m2, m3));
}

// maxima[lane] = the larger of itself and the largest score of keys [begin, end), for `vecs` vectors of lanes.
inline void raiseMaxima(int vecs, const float* scores, int64_t stride, int64_t begin, int64_t end, float* maxima) {
  for (int lane = 0; lane < vecs * Vec::kWidth; lane += Vec::kWidth) {
    maximumOf(scores + lane, stride, begin, end, Vec::load(maxima + lane)).store(maxima + lane);
  }
}

// Scores become weights for keys [begin, end), `stride` floats a key, lanes side by side. weights may be scores.
struct SoftmaxUpdate {
  const float* scores;
  float* weights;
  int64_t stride, begin, end;
  const float* maxima;  // of m and the scores
  float *m, *l, *rescale;
};

// weights = exp(scores - origin) of kKeys keys from `key` on; sum grows by them.
template <int kVecs, int kKeys>
SDPA_ALWAYS_INLINE void weighKeys(const SoftmaxUpdate& update, int64_t key, const Vec (&origin)[kVecs],
                                  Vec (&sum)[kVecs]) {
  constexpr int W = Vec::kWidth;
  Vec x[kKeys * kVecs];
SDPA_UNROLL
  for (int i = 0; i < kKeys * kVecs; ++i) {
    // The difference comes first: it is exact near the maximum, and no product of a large score overflows.
    x[i] = Vec::load(update.scores + (key + i / kVecs) * update.stride + i % kVecs * W) - origin[i % kVecs];
  }
  expOfDifferences(x);
SDPA_UNROLL
  for (int i = 0; i < kKeys * kVecs; ++i) {
    x[i].store(update.weights + (key + i / kVecs) * update.stride + i % kVecs * W);
    sum[i % kVecs] = sum[i % kVecs] + x[i];
  }
}

// weights = exp(scores - m) for kVecs vectors of lanes; m, l are updated and rescale receives exp(m before - m after). A
// NaN score is passed over by the maximum and reaches its weight and l.
template <int kVecs>
inline void updateSoftmax(const SoftmaxUpdate& update) {
  constexpr int W = Vec::kWidth;
  constexpr int kKeys = kVecs == 1 ? 2 : 1;  // a few exponentials at a time, each a long chain
  Vec origin[kVecs], sum[kVecs];
SDPA_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    const Vec after = Vec::load(update.maxima + v * W);
    origin[v] = finiteMaximum(after);
    exp(Vec::load(update.m + v * W) - origin[v]).store(update.rescale + v * W);
    after.store(update.m + v * W);
    sum[v] = Vec::zero();
  }
  for (int64_t group = update.begin; group < update.end; group += kPanel) {  // short chains keep the rounding small
    Vec part[kVecs];
SDPA_UNROLL
    for (int v = 0; v < kVecs; ++v) part[v] = Vec::zero();
    const int64_t last = minimum(group + kPanel, update.end);
    int64_t key = group;
    for (; key + kKeys <= last; key += kKeys) weighKeys<kVecs, kKeys>(update, key, origin, part);
    for (; key < last; ++key) weighKeys<kVecs, 1>(update, key, origin, part);
SDPA_UNROLL
    for (int v = 0; v < kVecs; ++v) sum[v] = sum[v] + part[v];
  }
SDPA_UNROLL
  for (int v = 0; v < kVecs; ++v) {
    Vec::fma(Vec::load(update.l + v * W), Vec::load(update.rescale + v * W), sum[v]).store(update.l + v * W);
  }
}

// For a tile of 1 to kTileVecs vectors of lanes.
inline void updateSoftmax(int vecs, const SoftmaxUpdate& update) {
  if (vecs == 1) updateSoftmax<1>(update);
  if (vecs == 2) updateSoftmax<2>(update);
  if (vecs == 3) updateSoftmax<3>(update);
}

// lse = m + log(l), natural logarithm; -Infinity for a row without keys.
inline float logSumExp(float m, float l) {
  return l == 0.0f ? kNegativeInfinity : static_cast<float>(static_cast<double>(m) + log(static_cast<double>(l)));
}

}  // namespace
}  // namespace sdpa
