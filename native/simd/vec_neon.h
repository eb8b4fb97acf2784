// Vec over one 128-bit NEON register (arm64; ARMv8.0 has float16 conversion and fused multiply-add).
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "../problem.h"

namespace sdpa {
namespace {

struct Mask {
  uint32x4_t raw;
  friend Mask operator&(Mask a, Mask b) { return {vandq_u32(a.raw, b.raw)}; }
  friend Mask operator|(Mask a, Mask b) { return {vorrq_u32(a.raw, b.raw)}; }
};

struct Vec {
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 32;
  float32x4_t raw;

  static Vec zero() { return {vdupq_n_f32(0.0f)}; }
  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const Float16* p) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))))};
  }
  static Vec load(const BFloat16* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16))};
  }
  static Vec load(const int8_t* p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    const int16x8_t words = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))};
  }
  // The first n < kWidth elements, zeros behind them; nothing past them is read.
  template <class T>
  static Vec loadPartial(const T* p, int n) {
    T lanes[4];
    memset(lanes, 0, sizeof lanes);
    memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
    return load(lanes);
  }

  void store(float* p) const { vst1q_f32(p, raw); }
  // Rounded to nearest even; NaN stays NaN.
  void store(Float16* p) const {
    vst1_u16(reinterpret_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(raw)));
  }
  void store(BFloat16* p) const {
    const uint32x4_t bits = vreinterpretq_u32_f32(raw), high = vshrq_n_u32(bits, 16);
    const uint32x4_t half = vaddq_u32(vdupq_n_u32(0x7fff), vandq_u32(high, vdupq_n_u32(1)));
    const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, half), 16);
    const uint32x4_t isNumber = vceqq_f32(raw, raw);
    vst1_u16(reinterpret_cast<uint16_t*>(p), vmovn_u32(vbslq_u32(isNumber, rounded, vorrq_u32(high, vdupq_n_u32(0x40)))));
  }
  void storePartial(float* p, int n) const {
    float lanes[4];
    store(lanes);
    memcpy(p, lanes, static_cast<size_t>(n) * sizeof(float));
  }

  friend Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.raw, b.raw)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.raw, b.raw)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.raw, b.raw)}; }
  friend Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.raw, b.raw)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.raw, a.raw, b.raw)}; }
  // The larger; b where either is NaN.
  static Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.raw, b.raw), a.raw, b.raw)}; }
  static Vec abs(Vec a) { return {vabsq_f32(a.raw)}; }

  // 2^n for a whole n in [-127, 127]; n stands in the low bits of `shifted`, which is n + 1.5 * 2^23.
  struct Power {
    float32x4_t shifted;
  };
  // n = a * b rounded to a whole number, halves to even.
  static Power roundToPower(Vec a, Vec b) { return {vfmaq_f32(vdupq_n_f32(12582912.0f), a.raw, b.raw)}; }
  static Vec exponentOf(Power power) { return {vsubq_f32(power.shifted, vdupq_n_f32(12582912.0f))}; }
  // a * 2^n, 0 for n = -127; NaN stays NaN.
  static Vec scaleBy(Vec a, Power power) {
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(power.shifted), 23);
    return {vmulq_f32(a.raw, vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(127u << 23))))};
  }
  static constexpr float kExpFloor = -88.0f;  // exp is 0 at and below it

  friend Mask operator<(Vec a, Vec b) { return {vcltq_f32(a.raw, b.raw)}; }
  friend Mask operator>=(Vec a, Vec b) { return {vcgeq_f32(a.raw, b.raw)}; }
  friend Mask operator==(Vec a, Vec b) { return {vceqq_f32(a.raw, b.raw)}; }
  static Vec select(Mask m, Vec a, Vec b) { return {vbslq_f32(m.raw, a.raw, b.raw)}; }

  // The largest lane; none is NaN.
  static float reduceMax(Vec a) { return vmaxvq_f32(a.raw); }
  // Four horizontal sums to out[0..3].
  static void reduceAdd4(Vec a, Vec b, Vec c, Vec d, float* out) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a.raw, b.raw), vpaddq_f32(c.raw, d.raw)));
  }

  // r[i][j] <-> r[j][i]
  static void transpose(Vec (&r)[kWidth]) {
    const float32x4_t a = vtrn1q_f32(r[0].raw, r[1].raw), b = vtrn2q_f32(r[0].raw, r[1].raw);
    const float32x4_t c = vtrn1q_f32(r[2].raw, r[3].raw), d = vtrn2q_f32(r[2].raw, r[3].raw);
    r[0].raw = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    r[1].raw = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    r[2].raw = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    r[3].raw = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
  }
};

}  // namespace
}  // namespace sdpa
