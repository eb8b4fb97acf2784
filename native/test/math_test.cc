// exp and tanh of simd/math.h, with the bounds that its comments state.
#include <float.h>
#include <math.h>
#include <string.h>

#include "../simd/half.h"
#include "isas.h"
#include "test.h"

namespace {

using namespace sdpa::test;

// |actual - exact| in units of the last place of the float32 nearest to exact, subnormals included.
double ulps(float actual, double exact) {
  const float nearest = fabsf(static_cast<float>(exact));
  int exponent;
  frexpf(nearest < FLT_MIN ? FLT_MIN : nearest, &exponent);
  return fabs(static_cast<double>(actual) - exact) / ldexp(1.0, exponent - FLT_MANT_DIG);
}

// fn(x, function(x)) for every `stride`-th float of [low, high], of one sign.
template <class Fn>
void sweep(const VecTable& vec, VecTable::Ternary function, float low, float high, Fn fn) {
  constexpr uint32_t kStride = 3989;
  float x[16] = {}, y[16];
  int lane = 0;
  for (uint32_t bits = sdpa::bitsOf(low); bits <= sdpa::bitsOf(high); bits += kStride) {
    x[lane++] = sdpa::fromBits(bits);
    if (lane < vec.width) continue;
    function(x, x, x, y);
    for (int i = 0; i < vec.width; ++i) fn(x[i], y[i]);
    lane = 0;
  }
}

float at(VecTable::Ternary function, float x) {
  float lanes[16];
  for (float& lane : lanes) lane = x;
  float result[16];
  function(lanes, lanes, lanes, result);
  return result[0];
}

TEST(math_expIsWithinItsBound) {
  for (const Isa& isa : isas()) {
    double worst = 0;
    float worstAt = 0;
    const auto judge = [&](float x, float y) {
      const double error = ulps(y, exp(static_cast<double>(x)));
      if (error > worst) worst = error, worstAt = x;
    };
    sweep(isa.vec, isa.vec.exp, 0x1p-30f, 88.0f, judge);
    sweep(isa.vec, isa.vec.exp, -0x1p-30f, -87.0f, judge);
    if (!(worst <= 1.5)) std::cout << "  " << isa.vec.isa << ": " << worst << " ULP at " << worstAt << "\n";
    CHECK(worst <= 1.5);
    CHECK_EQ(at(isa.vec.exp, 0.0f), 1.0f);
  }
}

TEST(math_expUnderflowsGraduallyOrToZero) {
  for (const Isa& isa : isas()) {
    sweep(isa.vec, isa.vec.exp, -87.0f, -1e6f, [&](float x, float y) {
      const bool isNear = ulps(y, exp(static_cast<double>(x))) <= 1.5;
      CHECK(isNear || (y == 0.0f && x < -87.0f));
    });
    CHECK_EQ(at(isa.vec.exp, -INFINITY), 0.0f);
    CHECK_EQ(at(isa.vec.exp, -FLT_MAX), 0.0f);
    CHECK(isnan(at(isa.vec.exp, NAN)));
    CHECK(isnan(at(isa.vec.exp, -NAN)));
  }
}

TEST(math_expOfDifferencesIsWithinItsBound) {
  for (const Isa& isa : isas()) {
    const float growth = strcmp(isa.vec.isa, "portable") == 0 ? 1.25f : 0.25f;
    double worst = 0;
    float worstAt = 0;
    sweep(isa.vec, isa.vec.expOfDifference, -0x1p-30f, -87.0f, [&](float x, float y) {
      const double excess = ulps(y, exp(static_cast<double>(x))) - static_cast<double>(fabsf(x) * growth);
      if (excess > worst) worst = excess, worstAt = x;
    });
    if (!(worst <= 2.5)) std::cout << "  " << isa.vec.isa << ": " << worst << " ULP too many at " << worstAt << "\n";
    CHECK(worst <= 2.5);
    sweep(isa.vec, isa.vec.expOfDifference, -87.0f, -1e6f, [&](float x, float y) {
      const bool isNear = ulps(y, exp(static_cast<double>(x))) <= 2.5 + static_cast<double>(fabsf(x) * growth);
      CHECK(isNear || (y == 0.0f && x < -87.0f));
    });
    CHECK_EQ(at(isa.vec.expOfDifference, 0.0f), 1.0f);
    CHECK_EQ(at(isa.vec.expOfDifference, -INFINITY), 0.0f);
    CHECK_EQ(at(isa.vec.expOfDifference, -FLT_MAX), 0.0f);
    CHECK(isnan(at(isa.vec.expOfDifference, NAN)));
  }
}

TEST(math_tanhIsWithinItsBound) {
  for (const Isa& isa : isas()) {
    double worst = 0;
    float worstAt = 0;
    const auto judge = [&](float x, float y) {
      const double error = ulps(y, tanh(static_cast<double>(x)));
      if (error > worst) worst = error, worstAt = x;
    };
    sweep(isa.vec, isa.vec.tanh, 0.0f, FLT_MAX, judge);
    sweep(isa.vec, isa.vec.tanh, -0.0f, -FLT_MAX, judge);
    if (!(worst <= 2.0)) std::cout << "  " << isa.vec.isa << ": " << worst << " ULP at " << worstAt << "\n";
    CHECK(worst <= 2.0);
    for (float x : {10.0f, 11.0f, FLT_MAX, INFINITY}) {
      CHECK_EQ(at(isa.vec.tanh, x), 1.0f);
      CHECK_EQ(at(isa.vec.tanh, -x), -1.0f);
    }
    CHECK(isnan(at(isa.vec.tanh, NAN)));
    CHECK(isnan(at(isa.vec.tanh, -NAN)));
  }
}

}  // namespace
