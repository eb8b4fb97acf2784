// Numbers that came from JavaScript, where each is a double, as the integers that they ought to be. Who wrote them may mean
// harm (a tensor whose fields were overwritten): a conversion out of range, or a sum that overflows, would be undefined.
#pragma once

#include <stdint.h>

namespace sdpa {

// Beyond what any offset, length or stride can be; of them four add up without overflow.
constexpr int64_t kFar = int64_t{1} << 60;

// As an index, length or stride: NaN is 0, and what is beyond `most` either way is that.
inline int64_t wholeOf(double x, int64_t most = kFar) {
  if (!(x == x)) return 0;
  if (x >= static_cast<double>(most)) return most;
  if (x <= -static_cast<double>(most)) return -most;
  return static_cast<int64_t>(x);
}

// a * b, at most kFar either way. In double first, whose error is far smaller than the distance from kFar to the limits of
// an int64_t.
inline int64_t productOf(int64_t a, int64_t b) {
  const double product = static_cast<double>(a) * static_cast<double>(b);
  if (product >= static_cast<double>(kFar)) return kFar;
  if (product <= -static_cast<double>(kFar)) return -kFar;
  return a * b;
}

// How far a strided block of elements reaches from its first one.
struct Extent {
  int64_t low = 0, high = 0;

  // An axis, of at least one element.
  void add(int64_t count, int64_t stride) {
    const int64_t last = productOf(count - 1, stride);
    if (last < 0) {
      low = low + last < -kFar ? -kFar : low + last;
    } else {
      high = high + last > kFar ? kFar : high + last;
    }
  }

  // Whether all of it lies among `length` elements when its first one is at `offset`.
  bool isWithin(int64_t length, int64_t offset) const {
    return offset >= 0 && offset < length && offset + low >= 0 && offset + high < length;
  }
};

}  // namespace sdpa
