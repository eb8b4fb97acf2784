// A row of an int8 cache: `dim` whole numbers from -127 to 127, filled up with zeros to a multiple of 4, then the float32
// that they are multiples of. The scale stands with its row: one stream of memory, and a row is copied as any other.
#pragma once

#include <stdint.h>
#include <string.h>

namespace sdpa {
namespace {

inline int64_t int8ScaleOffset(int64_t dim) { return (dim + 3) / 4 * 4; }
inline int64_t int8RowBytes(int64_t dim) { return int8ScaleOffset(dim) + 4; }

inline float int8RowScale(const int8_t* row, int64_t dim) {
  float scale;
  memcpy(&scale, row + int8ScaleOffset(dim), sizeof scale);
  return scale;
}

inline int32_t magnitudeBits(const float* x) {
  int32_t bits;
  memcpy(&bits, x, sizeof bits);
  return bits & 0x7fffffff;
}

// The nearest multiples of max|x| / 127, halves to even: |x - result| <= scale / 2, but for scales so small that they are
// rounded themselves (subnormal ones: <= 2^-142). x is finite.
inline void quantiseRow(const float* x, int64_t dim, int8_t* row) {
  int32_t largestBits = 0;  // of a magnitude: they are in the order of the numbers
  for (int64_t d = 0; d < dim; ++d) {
    const int32_t bits = magnitudeBits(x + d);
    largestBits = bits > largestBits ? bits : largestBits;
  }
  float largest;
  memcpy(&largest, &largestBits, sizeof largest);
  const float scale = largest / 127.0f;
  for (int64_t d = 0; d < dim; ++d) {
    float quotient = scale > 0.0f ? x[d] / scale : 0.0f;
    quotient = quotient > 127.0f ? 127.0f : quotient < -127.0f ? -127.0f : quotient;
    const float rounded = (quotient + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: no bits are left behind the point
    row[d] = static_cast<int8_t>(static_cast<int32_t>(rounded));
  }
  for (int64_t d = dim; d < int8ScaleOffset(dim); ++d) row[d] = 0;
  memcpy(row + int8ScaleOffset(dim), &scale, sizeof scale);
}

inline void restoreRow(const int8_t* row, int64_t dim, float* x) {
  const float scale = int8RowScale(row, dim);
  for (int64_t d = 0; d < dim; ++d) x[d] = static_cast<float>(row[d]) * scale;
}

inline bool isFiniteRow(const float* x, int64_t dim) {
  int32_t found = 0;
  for (int64_t d = 0; d < dim; ++d) found |= magnitudeBits(x + d) >= 0x7f800000;
  return found == 0;
}

}  // namespace
}  // namespace sdpa
