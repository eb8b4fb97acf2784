// Every operation of every Vec against the same operation on one float.
#include <float.h>
#include <math.h>

#include "../simd/half.h"
#include "attention_case.h"
#include "emulator.h"
#include "isas.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::BFloat16;
using sdpa::Float16;
using sdpa::bitsOf;

// Equal bits, or both NaN.
bool same(float actual, float expected) {
  return bitsOf(actual) == bitsOf(expected) || (isnan(actual) && isnan(expected));
}

// Numbers at which lanes go wrong, and ordinary ones.
float operand(Random& random) {
  static const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, -2.5f, INFINITY, -INFINITY, NAN, FLT_MAX, FLT_MIN, 1e-40f};
  return random.below(3) == 0 ? special[random.below(12)] : random.normal() * 100.0f;
}

// Holds `operation` against `scalar(a, b, c)` on many operands.
template <class Scalar>
void checkOperation(const Isa& isa, const char* name, VecTable::Ternary operation, Scalar scalar) {
  Random random(5);
  for (int round = 0; round < 500; ++round) {
    float a[16], b[16], c[16], out[16];
    for (int i = 0; i < isa.vec.width; ++i) a[i] = operand(random), b[i] = operand(random), c[i] = operand(random);
    operation(a, b, c, out);
    for (int i = 0; i < isa.vec.width; ++i) {
      const float expected = scalar(a[i], b[i], c[i]);
      if (same(out[i], expected)) continue;
      std::cout << "  " << isa.vec.isa << " " << name << "(" << a[i] << ", " << b[i] << ", " << c[i] << ") is " << out[i]
                << ", expected " << expected << "\n";
      CHECK(same(out[i], expected));
      return;
    }
  }
}

TEST(vec_arithmetic) {
  for (const Isa& isa : isas()) {
    const VecTable& v = isa.vec;
    checkOperation(isa, "add", v.add, [](float a, float b, float) { return a + b; });
    checkOperation(isa, "subtract", v.subtract, [](float a, float b, float) { return a - b; });
    checkOperation(isa, "multiply", v.multiply, [](float a, float b, float) { return a * b; });
    checkOperation(isa, "divide", v.divide, [](float a, float b, float) { return a / b; });
    checkOperation(isa, "max", v.max, [](float a, float b, float) { return a > b ? a : b; });
    checkOperation(isa, "abs", v.abs, [](float a, float, float) { return fabsf(a); });
    const bool isFused = strcmp(v.isa, "portable") != 0;
    checkOperation(isa, "fma", v.fma, [isFused](float a, float b, float c) { return isFused ? fmaf(a, b, c) : a * b + c; });
  }
}

TEST(vec_comparisons) {
  for (const Isa& isa : isas()) {
    const VecTable& v = isa.vec;
    const auto truth = [](bool x) { return x ? 1.0f : 0.0f; };
    checkOperation(isa, "less", v.less, [&](float a, float b, float) { return truth(a < b); });
    checkOperation(isa, "greaterOrEqual", v.greaterOrEqual, [&](float a, float b, float) { return truth(a >= b); });
    checkOperation(isa, "equal", v.equal, [&](float a, float b, float) { return truth(a == b); });
    checkOperation(isa, "both", v.both, [&](float a, float b, float c) { return truth(a < b && b < c); });
    checkOperation(isa, "either", v.either, [&](float a, float b, float c) { return truth(a < b || b < c); });
    checkOperation(isa, "select", v.select, [](float a, float b, float c) { return a < b ? b : c; });
  }
}

TEST(vec_broadcast) {
  for (const Isa& isa : isas()) {
    float a[16] = {7.0f, 8.0f}, out[16];
    isa.vec.broadcast(a, a, a, out);
    for (int i = 0; i < isa.vec.width; ++i) CHECK_EQ(out[i], 7.0f);
  }
}

TEST(vec_round) {
  for (const Isa& isa : isas()) {
    Random random(3);
    for (int round = 0; round < 5000; ++round) {
      float a[16], out[16];
      for (int i = 0; i < isa.vec.width; ++i) {
        a[i] = round % 2 ? random.normal() * 1000.0f : static_cast<float>(random.below(2000) - 1000) * 0.5f;
        if (round == 8) a[i] = NAN;
      }
      isa.vec.round(a, a, a, out);
      for (int i = 0; i < isa.vec.width; ++i) CHECK(out[i] == nearbyintf(a[i]) || (isnan(a[i]) && isnan(out[i])));
    }
  }
}

TEST(vec_scaleBy) {
  for (const Isa& isa : isas()) {
    const auto scaled = [&](float x, float n) {
      float a[16], b[16], out[16];
      for (int i = 0; i < 16; ++i) a[i] = x, b[i] = n;
      isa.vec.scaleBy(a, b, b, out);
      return out[isa.vec.width - 1];
    };
    for (int n = -126; n <= 127; ++n) CHECK_EQ(scaled(1.25f, static_cast<float>(n)), ldexpf(1.25f, n));
    CHECK_EQ(scaled(0.75f, -126.0f), ldexpf(0.75f, -126));
    CHECK(isnan(scaled(NAN, 3.0f)));
  }
}

float float16Value(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
  float value = exponent == 0 ? ldexpf(static_cast<float>(fraction), -24)
                              : ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
  if (exponent == 31) value = fraction ? NAN : INFINITY;
  return bits & 0x8000 ? -value : value;
}

float bfloat16Value(uint32_t bits) { return sdpa::fromBits(bits << 16); }

// All 65536 patterns, whole vectors and partial ones.
template <class Half>
void checkLoads(int width, void (*load)(const Half*, float*), void (*loadPartial)(const Half*, int, float*),
                float (*value)(uint32_t)) {
  for (uint32_t bits = 0; bits < 65536; bits += static_cast<uint32_t>(width)) {
    Half halves[16];
    float out[16], part[16];
    for (int i = 0; i < width; ++i) halves[i].bits = static_cast<uint16_t>(bits + static_cast<uint32_t>(i));
    load(halves, out);
    const int n = static_cast<int>(bits / static_cast<uint32_t>(width)) % width;
    loadPartial(halves, n, part);
    for (int i = 0; i < width; ++i) {
      CHECK(same(out[i], value(bits + static_cast<uint32_t>(i))));
      CHECK(same(part[i], i < n ? value(bits + static_cast<uint32_t>(i)) : 0.0f));
    }
  }
}

TEST(vec_loadsEveryHalf) {
  for (const Isa& isa : isas()) {
    checkLoads(isa.vec.width, isa.vec.loadFloat16, isa.vec.loadPartialFloat16, float16Value);
    checkLoads(isa.vec.width, isa.vec.loadBFloat16, isa.vec.loadPartialBFloat16, bfloat16Value);
  }
}

// Partial loads and stores against an inaccessible page, on either side, at every length.
template <class T>
void checkPartialLoads(int width, void (*loadPartial)(const T*, int, float*)) {
  for (int n = 0; n < width; ++n) {
    for (GuardSide side : {GuardSide::kAfter, GuardSide::kBefore}) {
      const GuardedBuffer<T> buffer(static_cast<size_t>(n), reliableSide(side));
      if (n > 0) memset(buffer.data(), 0, static_cast<size_t>(n) * sizeof(T));
      float out[16];
      loadPartial(buffer.data(), n, out);
      for (int i = 0; i < width; ++i) CHECK_EQ(out[i], 0.0f);
    }
  }
}

TEST(vec_partialLoadsStayInside) {
  for (const Isa& isa : isas()) {
    checkPartialLoads(isa.vec.width, isa.vec.loadPartialFloat32);
    checkPartialLoads(isa.vec.width, isa.vec.loadPartialFloat16);
    checkPartialLoads(isa.vec.width, isa.vec.loadPartialBFloat16);
  }
}

TEST(vec_partialStoresStayInside) {
  for (const Isa& isa : isas()) {
    float a[16];
    for (int i = 0; i < 16; ++i) a[i] = static_cast<float>(i + 1);
    for (int n = 0; n < isa.vec.width; ++n) {
      const GuardedBuffer<float> end(static_cast<size_t>(n));
      isa.vec.storePartial(a, n, end.data());
      float inside[17] = {};
      isa.vec.storePartial(a, n, inside);
      for (int i = 0; i < n; ++i) CHECK_EQ(end[static_cast<size_t>(i)], a[i]);
      for (int i = 0; i < 17; ++i) CHECK_EQ(inside[i], i < n ? a[i] : 0.0f);
    }
  }
}

TEST(vec_reduceAdd4) {
  for (const Isa& isa : isas()) {
    float rows[64], sums[5] = {0, 0, 0, 0, -1.0f};
    for (int i = 0; i < 64; ++i) rows[i] = static_cast<float>(i * i % 101);
    isa.vec.reduceAdd4(rows, sums);
    for (int row = 0; row < 4; ++row) {
      float expected = 0.0f;
      for (int i = 0; i < isa.vec.width; ++i) expected += rows[row * isa.vec.width + i];
      CHECK_EQ(sums[row], expected);  // small integers: exact in any order
    }
    CHECK_EQ(sums[4], -1.0f);
  }
}

TEST(vec_reduceMax) {
  for (const Isa& isa : isas()) {
    for (int place = 0; place < isa.vec.width; ++place) {
      float lanes[16];
      for (int i = 0; i < 16; ++i) lanes[i] = i == place ? -1.0f : -INFINITY;
      CHECK_EQ(isa.vec.reduceMax(lanes), -1.0f);
    }
  }
}

TEST(vec_transpose) {
  for (const Isa& isa : isas()) {
    const int w = isa.vec.width;
    float block[256];
    for (int i = 0; i < w * w; ++i) block[i] = static_cast<float>(i);
    isa.vec.transpose(block);
    for (int i = 0; i < w; ++i) {
      for (int j = 0; j < w; ++j) CHECK_EQ(block[i * w + j], static_cast<float>(j * w + i));
    }
  }
}

// Scalar conversions (simd/half.h): each pattern there and back, and each gap's middle to the even neighbour.
template <class Half>
void checkRounding(float (*value)(uint32_t), uint32_t infinity) {
  const auto rounded = [](float x) {
    Half half;
    sdpa::fromFloat(x, &half);
    return uint32_t{half.bits};
  };
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = value(bits);
    CHECK(same(sdpa::toFloat(Half{static_cast<uint16_t>(bits)}), x));
    if (isnan(x)) {
      CHECK(isnan(value(rounded(x))));
      continue;
    }
    CHECK_EQ(rounded(x), bits);
    const uint32_t sign = bits & 0x8000u;
    if ((bits ^ sign) >= infinity) continue;
    // The gap above the largest finite number is as wide as the one below it.
    const float next = (bits ^ sign) + 1 == infinity ? x + (x - value(bits - 1)) : value(bits + 1);
    const double middle = 0.5 * static_cast<double>(x) + 0.5 * static_cast<double>(next);
    const float tie = static_cast<float>(middle);
    if (isinf(tie)) continue;
    CHECK_EQ(rounded(tie), bits % 2 ? bits + 1 : bits);
    CHECK_EQ(rounded(nextafterf(tie, x)), bits);
    if (!isinf(next)) CHECK_EQ(rounded(nextafterf(tie, next)), bits + 1);
  }
  CHECK_EQ(rounded(INFINITY), infinity);
  CHECK_EQ(rounded(FLT_MAX), infinity);
}

// Whole vectors against the scalar conversion: numbers of every exponent, what lies between two halves, and NaN.
template <class Half>
void checkStores(int width, void (*store)(const float*, Half*)) {
  constexpr uint32_t kStep = 0x0fff;  // one less than half a gap of float16: ties, and both sides of them
  float x[16];
  int lane = 0;
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += kStep) {
    x[lane++] = sdpa::fromBits(static_cast<uint32_t>(bits));
    if (lane < width) continue;
    Half stored[16], expected;
    store(x, stored);
    for (int i = 0; i < width; ++i) {
      sdpa::fromFloat(x[i], &expected);
      CHECK_EQ(stored[i].bits, expected.bits);
    }
    lane = 0;
  }
}

TEST(vec_storesHalvesAsTheScalarConversionDoes) {
  for (const Isa& isa : isas()) {
    checkStores(isa.vec.width, isa.vec.storeFloat16);
    checkStores(isa.vec.width, isa.vec.storeBFloat16);
  }
}

TEST(half_roundsToNearestEven) {
  checkRounding<Float16>(float16Value, 0x7c00u);
  checkRounding<BFloat16>(bfloat16Value, 0x7f80u);
}

}  // namespace
