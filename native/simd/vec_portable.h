// Vec in plain C++: four floats, for any machine, with no instruction beyond the compiler's baseline.
#pragma once

#include <stdint.h>
#include <string.h>

#include "half.h"

namespace sdpa {
namespace {

// Four lanes. GCC and clang keep their vector type in a register (loops over float[4] go through memory: a sixth
// of the speed); comparisons give 0 or -1 in each lane.
#if defined(__GNUC__)
typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
#else
template <class T>
struct Lanes {
  T lane[4];
  T& operator[](int i) { return lane[i]; }
  const T& operator[](int i) const { return lane[i]; }
};
typedef Lanes<float> Float4;
typedef Lanes<int32_t> Int4;
#define SDPA_LANEWISE(Result, Operand, op, value)                       \
  inline Result operator op(const Operand& a, const Operand& b) {       \
    Result c;                                                           \
    for (int i = 0; i < 4; ++i) c[i] = (value);                         \
    return c;                                                           \
  }
SDPA_LANEWISE(Float4, Float4, +, a[i] + b[i])
SDPA_LANEWISE(Float4, Float4, -, a[i] - b[i])
SDPA_LANEWISE(Float4, Float4, *, a[i] * b[i])
SDPA_LANEWISE(Float4, Float4, /, a[i] / b[i])
SDPA_LANEWISE(Int4, Float4, <, -(a[i] < b[i]))
SDPA_LANEWISE(Int4, Float4, >=, -(a[i] >= b[i]))
SDPA_LANEWISE(Int4, Float4, ==, -(a[i] == b[i]))
SDPA_LANEWISE(Int4, Int4, &, a[i] & b[i])
SDPA_LANEWISE(Int4, Int4, |, a[i] | b[i])
SDPA_LANEWISE(Int4, Int4, ^, a[i] ^ b[i])
SDPA_LANEWISE(Int4, Int4, +, static_cast<int32_t>(static_cast<uint32_t>(a[i]) + static_cast<uint32_t>(b[i])))
SDPA_LANEWISE(Int4, Int4, <<, static_cast<int32_t>(static_cast<uint32_t>(a[i]) << b[i]))
#undef SDPA_LANEWISE
#endif

struct Mask {
  Int4 raw;
  friend Mask operator&(Mask a, Mask b) { return {a.raw & b.raw}; }
  friend Mask operator|(Mask a, Mask b) { return {a.raw | b.raw}; }
};

struct Vec {
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;
  Float4 raw;

  static Vec zero() { return broadcast(0.0f); }
  static Vec broadcast(float x) { return {Float4{x, x, x, x}}; }
  static Vec load(const float* p) {
    Vec a;
    memcpy(&a.raw, p, sizeof a.raw);
    return a;
  }
  template <class Half>
  static Vec load(const Half* p) {
    return {Float4{toFloat(p[0]), toFloat(p[1]), toFloat(p[2]), toFloat(p[3])}};
  }
  // The first n < kWidth elements, zeros behind them; nothing past them is read.
  static Vec loadPartial(const float* p, int n) {
    float lanes[kWidth] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  template <class Half>
  static Vec loadPartial(const Half* p, int n) {
    float lanes[kWidth] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; ++i) lanes[i] = toFloat(p[i]);
    return load(lanes);
  }

  void store(float* p) const { memcpy(p, &raw, sizeof raw); }
  // Rounded to nearest even; NaN stays NaN.
  template <class Half>
  void store(Half* p) const {
    for (int i = 0; i < kWidth; ++i) fromFloat(raw[i], p + i);
  }
  void storePartial(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = raw[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {a.raw + b.raw}; }
  friend Vec operator-(Vec a, Vec b) { return {a.raw - b.raw}; }
  friend Vec operator*(Vec a, Vec b) { return {a.raw * b.raw}; }
  friend Vec operator/(Vec a, Vec b) { return {a.raw / b.raw}; }
  // Two roundings: a true fused product would be a library call here.
  static Vec fma(Vec a, Vec b, Vec c) { return {a.raw * b.raw + c.raw}; }
  // The larger; b where either is NaN.
  static Vec max(Vec a, Vec b) { return select(b < a, a, b); }
  static Vec abs(Vec a) { return fromInts(ints(a) & repeat(0x7fffffff)); }

  // 2^n for a whole n in [-127, 127]; n stands in the low bits of `shifted`, which is n + 1.5 * 2^23.
  struct Power;
  // n = a * b rounded to a whole number, halves to even.
  static Power roundToPower(Vec a, Vec b);
  static Vec exponentOf(Power power);
  // a * 2^n, 0 for n = -127; NaN stays NaN.
  static Vec scaleBy(Vec a, Power power);
  static constexpr float kExpFloor = -88.0f;  // exp is 0 at and below it

  friend Mask operator<(Vec a, Vec b) { return {a.raw < b.raw}; }
  friend Mask operator>=(Vec a, Vec b) { return {a.raw >= b.raw}; }
  friend Mask operator==(Vec a, Vec b) { return {a.raw == b.raw}; }
  static Vec select(Mask m, Vec a, Vec b) { return fromInts(ints(b) ^ ((ints(a) ^ ints(b)) & m.raw)); }

  // The largest lane; none is NaN.
  static float reduceMax(Vec a) {
    float largest = a.raw[0];
    for (int i = 1; i < kWidth; ++i) largest = a.raw[i] > largest ? a.raw[i] : largest;
    return largest;
  }
  // Four horizontal sums to out[0..3].
  static void reduceAdd4(Vec a, Vec b, Vec c, Vec d, float* out) {
    Vec rows[kWidth] = {a, b, c, d};
    transpose(rows);
    ((rows[0] + rows[1]) + (rows[2] + rows[3])).store(out);
  }

  // r[i][j] <-> r[j][i]
  static void transpose(Vec (&r)[kWidth]) {
    const Float4 a = r[0].raw, b = r[1].raw, c = r[2].raw, d = r[3].raw;
    for (int i = 0; i < kWidth; ++i) r[i].raw = Float4{a[i], b[i], c[i], d[i]};
  }

 private:
  static Int4 repeat(int32_t x) { return Int4{x, x, x, x}; }
  static Int4 ints(Vec a) {
    Int4 bits;
    memcpy(&bits, &a.raw, sizeof bits);
    return bits;
  }
  static Vec fromInts(Int4 bits) {
    Vec a;
    memcpy(&a.raw, &bits, sizeof bits);
    return a;
  }
};

struct Vec::Power {
  Vec shifted;
};

inline Vec::Power Vec::roundToPower(Vec a, Vec b) { return {a * b + broadcast(12582912.0f)}; }

inline Vec Vec::exponentOf(Power power) { return power.shifted - broadcast(12582912.0f); }

inline Vec Vec::scaleBy(Vec a, Power power) {
  return a * fromInts((ints(power.shifted) + repeat(127)) << repeat(23));
}

}  // namespace
}  // namespace sdpa
