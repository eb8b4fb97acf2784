// Builds the VecTable of the Vec in scope. Included last by each unit of this folder.
#pragma once

#include "../../simd/math.h"
#include "vec_table.h"

namespace sdpa {
namespace {

// The Vec expression of a, b and c as a VecTable::Ternary.
#define SDPA_TERNARY(expression)                                                 \
  [](const float* pa, const float* pb, const float* pc, float* out) {            \
    const Vec a = Vec::load(pa), b = Vec::load(pb), c = Vec::load(pc);           \
    (void)a, (void)b, (void)c;                                                   \
    const Vec one = Vec::broadcast(1.0f), zero = Vec::zero();                    \
    (void)one, (void)zero;                                                       \
    (expression).store(out);                                                     \
  }

inline Vec expOfDifference(Vec x) {
  Vec only[1] = {x};
  expOfDifferences(only);
  return only[0];
}

template <class T>
void loadWhole(const T* p, float* out) {
  Vec::load(p).store(out);
}

template <class T>
void loadPart(const T* p, int n, float* out) {
  Vec::loadPartial(p, n).store(out);
}

template <class T>
void storeWhole(const float* a, T* out) {
  Vec::load(a).store(out);
}

inline void storePart(const float* a, int n, float* out) { Vec::load(a).storePartial(out, n); }

inline void reduceRows(const float* rows, float* out) {
  constexpr int W = Vec::kWidth;
  Vec::reduceAdd4(Vec::load(rows), Vec::load(rows + W), Vec::load(rows + 2 * W), Vec::load(rows + 3 * W), out);
}

inline float largest(const float* a) { return Vec::reduceMax(Vec::load(a)); }

inline void transposeRows(float* rows) {
  Vec block[Vec::kWidth];
  for (int i = 0; i < Vec::kWidth; ++i) block[i] = Vec::load(rows + i * Vec::kWidth);
  Vec::transpose(block);
  for (int i = 0; i < Vec::kWidth; ++i) block[i].store(rows + i * Vec::kWidth);
}

constexpr test::VecTable vecTableOf(const char* isa) {
  return {isa,
          Vec::kWidth,
          SDPA_TERNARY(a + b),
          SDPA_TERNARY(a - b),
          SDPA_TERNARY(a * b),
          SDPA_TERNARY(a / b),
          SDPA_TERNARY(Vec::fma(a, b, c)),
          SDPA_TERNARY(Vec::max(a, b)),
          SDPA_TERNARY(Vec::abs(a)),
          SDPA_TERNARY(Vec::exponentOf(Vec::roundToPower(a, Vec::broadcast(1.0f)))),
          SDPA_TERNARY(Vec::scaleBy(a, Vec::roundToPower(b, Vec::broadcast(1.0f)))),
          SDPA_TERNARY(Vec::select(a < b, one, zero)),
          SDPA_TERNARY(Vec::select(a >= b, one, zero)),
          SDPA_TERNARY(Vec::select(a == b, one, zero)),
          SDPA_TERNARY(Vec::select((a < b) & (b < c), one, zero)),
          SDPA_TERNARY(Vec::select((a < b) | (b < c), one, zero)),
          SDPA_TERNARY(Vec::select(a < b, b, c)),
          SDPA_TERNARY(Vec::broadcast(pa[0])),
          SDPA_TERNARY(exp(a)),
          SDPA_TERNARY(expOfDifference(a)),
          SDPA_TERNARY(tanh(a)),
          loadWhole<float>,
          loadWhole<Float16>,
          loadWhole<BFloat16>,
          loadPart<float>,
          loadPart<Float16>,
          loadPart<BFloat16>,
          storePart,
          storeWhole<Float16>,
          storeWhole<BFloat16>,
          reduceRows,
          largest,
          transposeRows};
}

#undef SDPA_TERNARY

}  // namespace
}  // namespace sdpa
