// Scalar conversions between float32 and the 16-bit types, by integer arithmetic; round to nearest even, NaN stays NaN.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../problem.h"

namespace sdpa {
namespace {

inline uint32_t bitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float fromBits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline float toFloat(float x) { return x; }
inline float toFloat(int8_t x) { return static_cast<float>(x); }

inline float toFloat(BFloat16 x) { return fromBits(static_cast<uint32_t>(x.bits) << 16); }

inline float toFloat(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return fromBits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x0400u) {  // zero or subnormal: magnitude * 2^-24
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    return fromBits(sign | bitsOf(value));
  }
  return fromBits(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
}

inline void fromFloat(float x, float* out) { *out = x; }

inline void fromFloat(float x, BFloat16* out) {
  const uint32_t bits = bitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    out->bits = static_cast<uint16_t>((bits >> 16) | 0x40u);
    return;
  }
  out->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void fromFloat(float x, Float16* out) {
  const uint32_t bits = bitsOf(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to Infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: the sum's rounding leaves magnitude / 2^-24 in the low bits
    half = bitsOf(fromBits(magnitude) + 0.5f) - bitsOf(0.5f);
  } else {
    half = (magnitude - ((127u - 15u) << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

}  // namespace
}  // namespace sdpa
