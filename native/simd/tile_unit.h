// Products of bfloat16 tiles: what AMX does, and what any stand-in for it offers.
//
// A tile is 16 rows of 32 bfloat16, 1 KiB in one piece. In an A tile a row is a row of the result and its 32 columns are
// depth; in a B tile a row is a pair of depths and its columns are 16 lanes, the pair side by side. Both halves of a
// block (32 result rows, 32 lanes) lie side by side, and in each half the slices of float32 numbers:
//
//   a  [step][half][slice][16 result rows][32 depths]
//   b  [step][half][slice][16 pairs of depths][16 lanes][2]
//   c  [32 result rows][32 lanes] float32
//
// A float32 number is the sum of up to three bfloat16 slices of 8 bits each; of the products of slices the large ones are
// summed, the smallest first (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations"). A Cut says how many slices, and which products.
#pragma once

#include <stdint.h>

namespace sdpa {
namespace {

constexpr int kTileEdge = 32;       // result rows, lanes and depths of a step's block
constexpr int kTileElements = 512;  // of one tile

struct TileProduct {
  const uint16_t* a;
  int64_t aStep;  // elements from step to step
  const uint16_t* b;
  int64_t bStep;
  int64_t steps;
  int halves;  // of the lanes: 1 leaves the upper 16 alone
  float* c;
  bool accumulate;  // adds to c; otherwise replaces it
};

struct SlicePair {
  int a, b;
};

// kSmall: the products beside (0, 0). Neighbours share a slice, so that its tiles stay loaded.
struct Cut1 {  // bfloat16
  static constexpr int kSlices = 1, kProducts = 1;
  static constexpr SlicePair kSmall[1] = {{0, 0}};
};
struct Cut2 {  // 16 bits of float32
  static constexpr int kSlices = 2, kProducts = 3;
  static constexpr SlicePair kSmall[2] = {{0, 1}, {1, 0}};
};
struct CutFloat16 {  // 11 bits fit into two slices: exact products
  static constexpr int kSlices = 2, kProducts = 4;
  static constexpr SlicePair kSmall[3] = {{0, 1}, {1, 1}, {1, 0}};
};
struct Cut3 {  // float32
  static constexpr int kSlices = 3, kProducts = 6;
  static constexpr SlicePair kSmall[5] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}};
};

}  // namespace
}  // namespace sdpa
