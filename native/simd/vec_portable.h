// Vec in plain C++: four floats, for any machine. Compilers turn the loops into whatever the baseline has.
#pragma once

#include <math.h>
#include <stdint.h>

#include "half.h"

namespace sdpa {
namespace {

struct Mask {
  bool raw[4];
  friend Mask operator&(Mask a, Mask b) {
    Mask c;
    for (int i = 0; i < 4; ++i) c.raw[i] = a.raw[i] && b.raw[i];
    return c;
  }
  friend Mask operator|(Mask a, Mask b) {
    Mask c;
    for (int i = 0; i < 4; ++i) c.raw[i] = a.raw[i] || b.raw[i];
    return c;
  }
};

struct Vec {
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;
  float raw[4];

  static Vec zero() { return broadcast(0.0f); }
  static Vec broadcast(float x) { return {{x, x, x, x}}; }
  static Vec load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  template <class Half>
  static Vec load(const Half* p) {
    return {{toFloat(p[0]), toFloat(p[1]), toFloat(p[2]), toFloat(p[3])}};
  }
  // The first n < kWidth elements, zeros behind them; nothing past them is read.
  static Vec loadPartial(const float* p, int n) {
    Vec a = zero();
    for (int i = 0; i < n; ++i) a.raw[i] = p[i];
    return a;
  }
  template <class Half>
  static Vec loadPartial(const Half* p, int n) {
    Vec a = zero();
    for (int i = 0; i < n; ++i) a.raw[i] = toFloat(p[i]);
    return a;
  }

  void store(float* p) const { storePartial(p, 4); }
  void storePartial(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = raw[i];
  }

  friend Vec operator+(Vec a, Vec b) {
    return map(a, b, [](float x, float y) { return x + y; });
  }
  friend Vec operator-(Vec a, Vec b) {
    return map(a, b, [](float x, float y) { return x - y; });
  }
  friend Vec operator*(Vec a, Vec b) {
    return map(a, b, [](float x, float y) { return x * y; });
  }
  friend Vec operator/(Vec a, Vec b) {
    return map(a, b, [](float x, float y) { return x / y; });
  }
  // Two roundings: a true fused product would be a library call here.
  static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  // The larger; b where either is NaN.
  static Vec max(Vec a, Vec b) {
    return map(a, b, [](float x, float y) { return x > y ? x : y; });
  }
  static Vec abs(Vec a) {
    return map(a, a, [](float x, float) { return fromBits(bitsOf(x) & 0x7fffffffu); });
  }
  // To nearest even, for |a| < 2^22; larger values and NaN are returned as they are.
  static Vec round(Vec a) {
    return map(a, a, [](float x, float) {
      const float magic = 12582912.0f;  // 1.5 * 2^23
      const float rounded = (x + magic) - magic;
      return x < 4194304.0f && x > -4194304.0f ? rounded : x;
    });
  }
  // a * 2^n for integral n <= 127; 0 where n < -126 (so -Infinity gives 0); NaN stays NaN.
  static Vec scalePowerOfTwo(Vec a, Vec n) {
    return map(a, n, [](float x, float y) {
      const float bounded = y > -127.0f ? y : -127.0f;
      return x * fromBits(static_cast<uint32_t>(static_cast<int32_t>(bounded) + 127) << 23);
    });
  }

  friend Mask operator<(Vec a, Vec b) {
    return compare(a, b, [](float x, float y) { return x < y; });
  }
  friend Mask operator>=(Vec a, Vec b) {
    return compare(a, b, [](float x, float y) { return x >= y; });
  }
  friend Mask operator==(Vec a, Vec b) {
    return compare(a, b, [](float x, float y) { return x == y; });
  }
  static Vec select(Mask m, Vec a, Vec b) {
    Vec c;
    for (int i = 0; i < 4; ++i) c.raw[i] = m.raw[i] ? a.raw[i] : b.raw[i];
    return c;
  }

  // Four horizontal sums to out[0..3].
  static void reduceAdd4(Vec a, Vec b, Vec c, Vec d, float* out) {
    Vec rows[4] = {a, b, c, d};
    transpose(rows);
    ((rows[0] + rows[1]) + (rows[2] + rows[3])).store(out);
  }

  // r[i][j] <-> r[j][i]
  static void transpose(Vec (&r)[kWidth]) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < i; ++j) {
        const float t = r[i].raw[j];
        r[i].raw[j] = r[j].raw[i];
        r[j].raw[i] = t;
      }
    }
  }

 private:
  template <class Fn>
  static Vec map(Vec a, Vec b, Fn fn) {
    Vec c;
    for (int i = 0; i < 4; ++i) c.raw[i] = fn(a.raw[i], b.raw[i]);
    return c;
  }
  template <class Fn>
  static Mask compare(Vec a, Vec b, Fn fn) {
    Mask m;
    for (int i = 0; i < 4; ++i) m.raw[i] = fn(a.raw[i], b.raw[i]);
    return m;
  }
};

}  // namespace
}  // namespace sdpa
