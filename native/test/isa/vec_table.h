// A Vec and its elementary functions as plain function pointers, so that tests compiled for any processor can reach
// each of them. One table per ISA, like KernelTable.
#pragma once

#include <stdint.h>

#include "../../problem.h"

namespace sdpa {
namespace test {

struct VecTable {
  const char* isa;
  int32_t width;

  // out = op(a, b, c) over one vector each. The comparisons give 1 and 0, `both` and `either` join a < b with b < c, and
  // select is a < b ? b : c.
  using Ternary = void (*)(const float* a, const float* b, const float* c, float* out);
  Ternary add, subtract, multiply, divide, fma, max, abs, round, scaleBy;
  Ternary less, greaterOrEqual, equal, both, either, select, broadcast;
  Ternary exp, expOfDifference, tanh;  // of a

  void (*loadFloat32)(const float* p, float* out);
  void (*loadFloat16)(const Float16* p, float* out);
  void (*loadBFloat16)(const BFloat16* p, float* out);
  void (*loadPartialFloat32)(const float* p, int n, float* out);
  void (*loadPartialFloat16)(const Float16* p, int n, float* out);
  void (*loadPartialBFloat16)(const BFloat16* p, int n, float* out);
  void (*storePartial)(const float* a, int n, float* out);
  void (*storeFloat16)(const float* a, Float16* out);
  void (*storeBFloat16)(const float* a, BFloat16* out);
  void (*reduceAdd4)(const float* rows, float* out);  // [4][width] -> [4]
  float (*reduceMax)(const float* a);
  void (*transpose)(float* rows);                     // [width][width] in place
};

}  // namespace test
}  // namespace sdpa
