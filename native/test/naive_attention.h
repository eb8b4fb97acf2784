// Attention as the contract words it, one row at a time, in the precision asked for: float64 is the truth, float32 says
// how much error the arithmetic itself must be granted.
#pragma once

#include <math.h>

#include <algorithm>
#include <string>
#include <vector>

#include "attention_case.h"

namespace sdpa {
namespace test {

inline bool isVisible(const AttentionInstance& a, int64_t s, int64_t head, int64_t i, int64_t j) {
  const AttentionCase& c = a.spec;
  const int64_t p = a.sequences[static_cast<size_t>(s)].queryOffset + i;
  if (c.windowRight < kOpen && j > p + c.windowRight) return false;
  if (c.windowLeft < kOpen && j < p - c.windowLeft && j >= c.sinkTokens) return false;
  if (a.mask.values) {
    const ScoreTensor& m = a.mask;
    const int64_t index = s * m.sequenceStride + head * m.headStride + i * m.rowStride + j * m.keyStride;
    if (m.values->floats[static_cast<size_t>(index)] == 0.0f) return false;
  }
  return true;
}

// The score of one visible key; -Infinity where the bias masks it. `rounded`: see naiveRow.
template <class Real, class Rounding>
Real naiveScore(const AttentionInstance& a, int64_t s, int64_t head, int64_t i, int64_t j, Rounding rounded) {
  const AttentionCase& c = a.spec;
  Real biasValue = 0;
  if (a.bias.values) {
    const ScoreTensor& b = a.bias;
    const int64_t index = s * b.sequenceStride + head * b.headStride + i * b.rowStride + j * b.keyStride;
    biasValue = b.values->floats[static_cast<size_t>(index)];
    if (biasValue == -static_cast<Real>(INFINITY)) return biasValue;
  }
  const float* q = a.q->values.floats.data() + a.qRow(s, head, i);
  const float* k = a.k->values.floats.data() + a.kRow(s, head / c.groupSize, j);
  Real score = 0;
  for (int64_t d = 0; d < c.headDim; ++d) score += static_cast<Real>(q[d]) * rounded(static_cast<Real>(k[d]));
  score *= static_cast<Real>(a.problem.scale);
  if (c.softcap != 0.0f) score = c.softcap * std::tanh(score / c.softcap);
  if (a.alibi) {
    const Real slope = a.alibi->floats[static_cast<size_t>(s * a.numHeads() + head)];
    score -= slope * static_cast<Real>(llabs(a.sequences[static_cast<size_t>(s)].queryOffset + i - j));
  }
  return score + biasValue;
}

// The same of keys in a float dtype.
template <class Real>
Real naiveScore(const AttentionInstance& a, int64_t s, int64_t head, int64_t i, int64_t j) {
  return naiveScore<Real>(a, s, head, i, j, [](Real x) { return x; });
}

// One row of out and lse; returns the largest |score| among the keys that matter (0 if there is none). `rounded` is what
// becomes of a weight before it meets its value, and of keys and values that are in no float dtype.
template <class Real, class Rounding>
double naiveRow(const AttentionInstance& a, int64_t s, int64_t head, int64_t i, Real* out, Real* lse, Rounding rounded) {
  const AttentionCase& c = a.spec;
  const int64_t kvLen = a.sequences[static_cast<size_t>(s)].kvLen;
  const Real sink = a.sinks ? a.sinks->floats[static_cast<size_t>(head)] : -INFINITY;
  std::vector<std::pair<int64_t, Real>> scores;
  Real m = sink;
  double largest = 0;
  for (int64_t j = 0; j < kvLen; ++j) {
    if (!isVisible(a, s, head, i, j)) continue;
    const Real score = naiveScore<Real>(a, s, head, i, j, rounded);
    if (score == -static_cast<Real>(INFINITY)) continue;
    scores.push_back({j, score});
    m = score > m || score != score ? score : m;
  }
  std::fill(out, out + c.valueDim, Real{0});
  Real l = sink == -static_cast<Real>(INFINITY) ? Real{0} : std::exp(sink - m);
  for (const auto& [j, score] : scores) {
    const Real weight = std::exp(score - m);
    const float* v = a.v->values.floats.data() + a.vRow(s, head / c.groupSize, j);
    for (int64_t d = 0; d < c.valueDim; ++d) out[d] += rounded(weight) * rounded(static_cast<Real>(v[d]));
    l += weight;
    if (weight > Real{1e-9}) largest = std::max(largest, static_cast<double>(std::fabs(score)));
  }
  for (int64_t d = 0; d < c.valueDim && l != 0; ++d) out[d] /= l;
  *lse = l == 0 ? -static_cast<Real>(INFINITY) : m + std::log(l);
  return largest;
}

// What an instance must give, and how far from it a result may be: twice the error of naive float32 (weights and result
// rounded to the dtype of 16-bit inputs), plus a floor for rows so short that float32 was lucky. The floor is what rounding a score of that size
// to float32 does to a weight, times the size of the values.
struct Expected {
  std::vector<double> out, lse;  // [sequence][head][row], rows of valueDim
  double outTolerance, lseTolerance, relativeTolerance;  // of any value; of the relative Frobenius norm of out
};

Expected expectedOf(const AttentionInstance& a);

// What is wrong with out and lse, in words; empty if nothing is. Looks at what lies between rows too.
std::string faultOf(const AttentionInstance& a, const Expected& expected);

}  // namespace test
}  // namespace sdpa
