// Elementary functions over any Vec. Each states its error and range; native/test/math_test.cc asserts them.
#pragma once

#include <math.h>

// Included after the Vec of the ISA.

namespace sdpa {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kNegativeInfinity = -HUGE_VALF;

// 2^x. Max error 1.5 ULP for x in [-126, 126]; 0 below about -127 (gradual underflow where the ISA has it) and for
// -Infinity; NaN stays NaN. Polynomial of degree 6 on [-1/2, 1/2], exact at 0, minimax relative error 2.6e-9.
inline Vec exp2(Vec x) {
  const Vec clamped = Vec::max(Vec::broadcast(-200.0f), x);
  const Vec n = Vec::round(clamped);
  const Vec t = clamped - n;
  Vec p = Vec::broadcast(0.00015594678f);
  p = Vec::fma(p, t, Vec::broadcast(0.0013406643f));
  p = Vec::fma(p, t, Vec::broadcast(0.009617693f));
  p = Vec::fma(p, t, Vec::broadcast(0.055503104f));
  p = Vec::fma(p, t, Vec::broadcast(0.24022652f));
  p = Vec::fma(p, t, Vec::broadcast(0.69314724f));
  p = Vec::fma(p, t, Vec::broadcast(1.0f));
  return Vec::scalePowerOfTwo(p, n);
}

// tanh(x). Max error 3 ULP on the whole line; +-1 beyond +-10; NaN stays NaN. An odd polynomial below 0.625
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
  const Vec e = exp2(bounded * Vec::broadcast(2.0f * kLog2E));
  const Vec positive = Vec::broadcast(1.0f) - Vec::broadcast(2.0f) / (e + Vec::broadcast(1.0f));
  const Vec large = Vec::select(x < Vec::zero(), Vec::zero() - positive, positive);
  // A NaN fails both comparisons and takes the polynomial, which keeps it.
  return Vec::select(magnitude >= Vec::broadcast(0.625f), large, small);
}

}  // namespace
}  // namespace sdpa
