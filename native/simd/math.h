// Elementary functions over any Vec. Each states its error and range; native/test/math_test.cc asserts them.
#pragma once

#include <math.h>

#include "../compiler.h"

// Included after the Vec of the ISA.

namespace sdpa {
namespace {

constexpr float kNegativeInfinity = -HUGE_VALF;

// e^x. Max error 1.5 ULP for x in [-87, 88]; 0 below about -87.7 (gradual underflow to -103.9 where the ISA has it) and
// for -Infinity; NaN stays NaN. x = n ln 2 + r by Cody and Waite's split of ln 2, whose high part has so few bits that
// n * high is exact; then a polynomial of degree 6 on [-ln(2)/2, ln(2)/2], exact at 0, minimax relative error 2.6e-9.
inline Vec exp(Vec x) {
  const Vec clamped = Vec::max(Vec::broadcast(Vec::kExpFloor), x);
  const Vec::Power power = Vec::roundToPower(clamped, Vec::broadcast(1.44269504f));
  const Vec n = Vec::exponentOf(power);
  Vec r = Vec::fma(n, Vec::broadcast(-0.693359375f), clamped);
  r = Vec::fma(n, Vec::broadcast(2.12194440e-4f), r);
  Vec p = Vec::broadcast(0.0014061277f);
  p = Vec::fma(p, r, Vec::broadcast(0.008379021f));
  p = Vec::fma(p, r, Vec::broadcast(0.041664775f));
  p = Vec::fma(p, r, Vec::broadcast(0.16666365f));
  p = Vec::fma(p, r, Vec::broadcast(0.50000006f));
  p = Vec::fma(p, r, Vec::broadcast(1.0f));
  p = Vec::fma(p, r, Vec::broadcast(1.0f));
  return Vec::scaleBy(p, power);
}

// e^x of several vectors at once, for the weights of a softmax: x <= 0, and 0 stands beside it. Two operations less than
// exp, which cost a weight of e^x at most |x| / 4 ULP: nothing beside the largest, 1. Max error 2.5 + |x| / 4 ULP
// (2.5 + 5/4 |x| where fma rounds twice); exactly 1 at 0; 0 below about -87.7 or -103.9 and for -Infinity, as exp; NaN stays
// NaN. x log2(e) = n - r, then a polynomial for 2^-r of degree 5 on [-1/2, 1/2], minimax relative error 9.4e-8.
template <int kCount>
SDPA_ALWAYS_INLINE void expOfDifferences(Vec (&x)[kCount]) {
  Vec::Power power[kCount];
  Vec r[kCount], p[kCount];
  const auto step = [&](float coefficient) {
SDPA_UNROLL
    for (int i = 0; i < kCount; ++i) p[i] = Vec::fma(p[i], r[i], Vec::broadcast(coefficient));
  };
SDPA_UNROLL
  for (int i = 0; i < kCount; ++i) x[i] = Vec::max(Vec::broadcast(Vec::kExpFloor), x[i]);
SDPA_UNROLL
  for (int i = 0; i < kCount; ++i) power[i] = Vec::roundToPower(x[i], Vec::broadcast(1.44269504f));
SDPA_UNROLL
  for (int i = 0; i < kCount; ++i) {
    r[i] = Vec::fma(x[i], Vec::broadcast(-1.44269504f), Vec::exponentOf(power[i]));
    p[i] = Vec::broadcast(-0.00132696528f);
  }
  step(0.00967129786f);
  step(-0.0555071086f);
  step(0.240222469f);
  step(-0.693147004f);
  step(1.0f);
SDPA_UNROLL
  for (int i = 0; i < kCount; ++i) x[i] = Vec::scaleBy(p[i], power[i]);
}

// tanh(x). Max error 2 ULP on the whole line; +-1 beyond +-10; NaN stays NaN. An odd polynomial below 0.625
// (relative error 7e-9), 1 - 2 / (exp(2x) + 1) above, where that loses nothing.
inline Vec tanh(Vec x) {
  const Vec magnitude = Vec::abs(x);
  const Vec z = x * x;
  Vec p = Vec::broadcast(-0.005515164f);
  p = Vec::fma(p, z, Vec::broadcast(0.02046942f));
  p = Vec::fma(p, z, Vec::broadcast(-0.053688023f));
  p = Vec::fma(p, z, Vec::broadcast(0.1333083f));
  p = Vec::fma(p, z, Vec::broadcast(-0.3333326f));
  const Vec small = Vec::fma(p * z, x, x);
  const Vec bounded = Vec::select(magnitude < Vec::broadcast(10.0f), magnitude, Vec::broadcast(10.0f));
  const Vec e = exp(bounded + bounded);
  const Vec positive = Vec::broadcast(1.0f) - Vec::broadcast(2.0f) / (e + Vec::broadcast(1.0f));
  const Vec large = Vec::select(x < Vec::zero(), Vec::zero() - positive, positive);
  // A NaN fails both comparisons and takes the polynomial, which keeps it.
  return Vec::select(magnitude >= Vec::broadcast(0.625f), large, small);
}

}  // namespace
}  // namespace sdpa
