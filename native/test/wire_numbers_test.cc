// Integers from hostile doubles, and how far hostile strides reach: no overflow (the sanitizers see one), and never within.
#include "wire_numbers.h"

#include <limits>

#include "test.h"

namespace sdpa {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr double kHostile[] = {0.0,   -0.0,  1.0,    -1.0,    0.5,    -0.5,   0x1p31, -0x1p31, 0x1p32,  0x1p52, 0x1p53,
                               0x1p62, 0x1p63, -0x1p63, 0x1p64, -0x1p64, 1e300,  -1e300,
                               std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::quiet_NaN()};

TEST(wholeNumbersOfAnyDouble) {
  for (double x : kHostile) {
    const int64_t whole = wholeOf(x);
    CHECK(whole >= -kFar && whole <= kFar);
    if (x > -0x1p60 && x < 0x1p60) CHECK(static_cast<double>(whole) == static_cast<double>(static_cast<int64_t>(x)));
  }
  CHECK(wholeOf(std::numeric_limits<double>::quiet_NaN()) == 0);
  CHECK(wholeOf(1e300) == kFar);
  CHECK(wholeOf(-1e300) == -kFar);
  CHECK(wholeOf(1e300, 1024) == 1024);
  CHECK(wholeOf(2048, 1024) == 1024);
  CHECK(wholeOf(7.9, 1024) == 7);
}

TEST(productsSaturate) {
  CHECK(productOf(3, -4) == -12);
  CHECK(productOf(int64_t{1} << 31, int64_t{1} << 28) == int64_t{1} << 59);
  CHECK(productOf(int64_t{1} << 31, int64_t{1} << 29) == kFar);
  CHECK(productOf(kMost, kMost) == kFar);
  CHECK(productOf(kMost, -kMost) == -kFar);
  CHECK(productOf(-kMost, -kMost) == kFar);
  CHECK(productOf(kMost, 0) == 0);
}

TEST(anExtentIsExactWhereItMatters) {
  Extent extent;
  extent.add(2, 12);
  extent.add(3, -4);
  extent.add(4, 1);
  CHECK(extent.low == -8 && extent.high == 15);
  CHECK(extent.isWithin(24, 8));
  CHECK(!extent.isWithin(24, 9));
  CHECK(!extent.isWithin(24, 7));
  CHECK(!extent.isWithin(0, 0));
  CHECK(!Extent().isWithin(5, 5));
  CHECK(!Extent().isWithin(5, -1));
}

TEST(noHostileExtentIsWithin) {
  // Whatever the strides and counts, what claims more than there is must not pass by wrapping around.
  for (double a : kHostile) {
    for (double b : kHostile) {
      for (double c : kHostile) {
        const int64_t count = wholeOf(a), stride = wholeOf(b), offset = wholeOf(c);
        if (count < 1) continue;
        Extent extent;
        extent.add(count, stride);
        extent.add(count, stride);
        extent.add(2, 1);
        const double last = 2.0 * (static_cast<double>(count) - 1.0) * static_cast<double>(stride);
        const double first = static_cast<double>(offset) + (last < 0 ? last : 0), end = static_cast<double>(offset) + (last > 0 ? last : 0) + 1;
        CHECK(extent.isWithin(1000, offset) == (first >= 0 && end < 1000));
      }
    }
  }
}

}  // namespace
}  // namespace sdpa
