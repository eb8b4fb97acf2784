// Storage dtype -> float32 panels. The only place, beside the decode kernel's loads, that knows a storage dtype.
#pragma once

#include "../int8_row.h"
#include "../simd/half.h"
#include "key_span.h"

namespace sdpa {
namespace {

// n elements of a row as a Vec, zeros behind them; nothing past them is read.
template <class T>
inline Vec loadUpTo(const T* p, int64_t n) {
  return n >= Vec::kWidth ? Vec::load(p) : Vec::loadPartial(p, static_cast<int>(n));
}

inline bool hasNaN(Vec x) {
  float lanes[Vec::kWidth];
  x.store(lanes);
  bool found = false;
  for (int i = 0; i < Vec::kWidth; ++i) found = found || lanes[i] != lanes[i];
  return found;
}

inline void storeUpTo(Vec x, int64_t n, float* out) {
  if (n >= Vec::kWidth) {
    x.store(out);
  } else {
    x.storePartial(out, static_cast<int>(n));
  }
}

template <class Half>
inline void storeUpTo(Vec x, int64_t n, Half* out) {
  if (n >= Vec::kWidth) return x.store(out);
  Half lanes[Vec::kWidth];
  x.store(lanes);
  memcpy(out, lanes, static_cast<size_t>(n) * sizeof(Half));
}

// What the numbers of a row of K or V are multiples of.
template <class T>
inline float rowScale(const T*, int64_t) {
  return 1.0f;
}
inline float rowScale(const int8_t* row, int64_t dim) { return int8RowScale(row, dim); }

// One stored value; for the rare paths that go element by element.
inline float storedValue(const Problem& problem, const Sequence& sequence, int64_t kvHead, int64_t key, int64_t d) {
  if (problem.kvDType == kFloat16) return toFloat(spanAt<Float16>(problem, sequence, kvHead, key).v[d]);
  if (problem.kvDType == kBFloat16) return toFloat(spanAt<BFloat16>(problem, sequence, kvHead, key).v[d]);
  if (problem.kvDType == kInt8) {
    const int8_t* row = spanAt<int8_t>(problem, sequence, kvHead, key).v;
    return static_cast<float>(row[d]) * int8RowScale(row, problem.valueDim);
  }
  return spanAt<float>(problem, sequence, kvHead, key).v[d];
}

// out[d * outStride + r] = scales[r] * rows[r][d] for r < width, d < depth. A null row gives zeros. width is a multiple of
// the vector width.
template <class T>
inline void packTransposed(const T* const* rows, int64_t width, int64_t depth, const float* scales, float* out,
                           int64_t outStride) {
  constexpr int W = Vec::kWidth;
  for (int64_t r = 0; r < width; r += W) {
    const Vec factor = Vec::load(scales + r);
    for (int64_t d = 0; d < depth; d += W) {
      const int64_t n = minimum(W, depth - d);
      Vec block[W];
SDPA_UNROLL
      for (int i = 0; i < W; ++i) block[i] = rows[r + i] ? loadUpTo(rows[r + i] + d, n) : Vec::zero();
      Vec::transpose(block);
SDPA_UNROLL
      for (int j = 0; j < W; ++j) {
        if (j < n) (block[j] * factor).store(out + (d + j) * outStride + r);
      }
    }
  }
}

// Keys [begin, end) of a block into kPanels; begin is a multiple of kPanel, the last panel is filled with zeros. k is the
// row of `begin`.
template <class T>
inline void packKeys(const T* k, int64_t rowStride, int64_t begin, int64_t end, int64_t headDim, float* kPanels) {
  for (int64_t j = begin; j < end; j += kPanel) {
    const T* rows[kPanel];
    float scales[kPanel];
    for (int i = 0; i < kPanel; ++i) {
      rows[i] = j + i < end ? k + (j - begin + i) * rowStride : nullptr;
      scales[i] = rows[i] ? rowScale(rows[i], headDim) : 1.0f;
    }
    packTransposed(rows, kPanel, headDim, scales, kPanels + j * headDim, kPanel);
  }
}

// Values [begin, end) of a block into vPanels (kKeyBlock keys a panel), channels filled with zeros to a whole panel. v is
// the row of `begin`.
// Returns whether every value is finite.
template <class T>
inline bool packValues(const T* v, int64_t rowStride, int64_t begin, int64_t end, int64_t valueDim, float* vPanels) {
  constexpr int W = Vec::kWidth;
  Vec poison = Vec::zero();  // 0 * x is NaN exactly where x is not finite
  for (int64_t j = begin; j < end; ++j) {
    const T* row = v + (j - begin) * rowStride;
    const Vec scale = Vec::broadcast(rowScale(row, valueDim));
    for (int64_t d = 0; d < roundUp(valueDim, kPanel); d += W) {
      const Vec x = d < valueDim ? loadUpTo(row + d, valueDim - d) * scale : Vec::zero();
      poison = Vec::fma(x, Vec::zero(), poison);
      x.store(vPanels + (d / kPanel) * (kKeyBlock * kPanel) + j * kPanel + d % kPanel);
    }
  }
  return !hasNaN(poison);
}

}  // namespace
}  // namespace sdpa
