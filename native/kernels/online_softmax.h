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

// weights[key][lane] = exp(scores[key][lane] - m) for keys [begin, end) of one vector of lanes, `stride` floats a key;
// m, l are updated and rescale receives exp(m before - m after). weights may be scores. A NaN score is passed over by
// the maximum and reaches its weight and l.
inline void updateSoftmax(const float* scores, float* weights, int64_t stride, int64_t begin, int64_t end, float* m,
                          float* l, float* rescale) {
  const Vec before = Vec::load(m);
  const Vec after = maximumOf(scores, stride, begin, end, before);

  // The difference comes first: it is exact near the maximum, and no product of a large score overflows.
  const Vec origin = finiteMaximum(after);
  const Vec factor = exp(before - origin);
  Vec sum = Vec::zero();
  for (int64_t group = begin; group < end; group += kPanel) {  // short chains keep the sum's rounding small
    Vec part = Vec::zero();
    for (int64_t j = group; j < minimum(group + kPanel, end); ++j) {
      const Vec p = exp(Vec::load(scores + j * stride) - origin);
      p.store(weights + j * stride);
      part = part + p;
    }
    sum = sum + part;
  }
  after.store(m);
  Vec::fma(Vec::load(l), factor, sum).store(l);
  factor.store(rescale);
}

// lse = m + log(l), natural logarithm; -Infinity for a row without keys.
inline float logSumExp(float m, float l) {
  return l == 0.0f ? kNegativeInfinity : static_cast<float>(static_cast<double>(m) + log(static_cast<double>(l)));
}

}  // namespace
}  // namespace sdpa
