// What one ISA offers to the runtime: plain function pointers over plain data, one table per translation unit.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "problem.h"

namespace sdpa {

// Query rows of one KV head are flattened as row = query * groupSize + head in group, so that one tile holds all
// heads of a few neighbouring queries.
struct PrefillTask {
  int64_t sequence, kvHead;
  int64_t rowBegin, rowEnd;  // multiples of KernelTable::tileRows, but for the last end
};

// A chunk of keys against all rows (groupSize * qLen, as many as there may be) of one KV head. Chunks lie at fixed absolute
// boundaries.
struct DecodeTask {
  int64_t sequence, kvHead;
  int64_t keyBegin, keyEnd;
  float* partial;  // [m: rows][l: rows][o: rows * valueDim] of this chunk
};

// Where the statistics of a problem's rows go, each laid out as Problem::lse is, which is one of them; and the window
// around a query whose weights are summed to windowMass.
struct StatsOutput {
  float *entropy, *maxWeight;
  int32_t* argmax;
  float* windowMass;  // null when not wanted
  int64_t massLeft, massRight, massSinkTokens;
};

struct KernelTable {
  const char* isa;
  int32_t tileRows;  // query rows of a prefill tile

  size_t (*prefillScratchBytes)(const Problem& problem, int64_t rows);
  void (*prefill)(const Problem& problem, const PrefillTask& task, void* scratch);

  size_t (*decodeScratchBytes)(const Problem& problem, int64_t rows);
  void (*decode)(const Problem& problem, const DecodeTask& task, void* scratch);
  // Folds what the sequence shares and the partials of numChunks consecutive chunks (stride partialFloats) into out and lse
  // of this KV head.
  void (*decodeMerge)(const Problem& problem, const DecodeTask& first, int64_t numChunks, int64_t partialFloats);

  // Statistics of the weights of a task's rows. The problem has no values: valueDim is 0, and v null.
  size_t (*statsScratchBytes)(const Problem& problem, int64_t rows);
  void (*stats)(const Problem& problem, const StatsOutput& output, const PrefillTask& task, void* scratch);

  // Ceilings: independent FMA chains in registers (returns the FLOPs done), and a sum over a buffer.
  double (*fmaProbe)(int64_t iterations, float* sink);
  float (*readProbe)(const float* data, size_t count);
  // The same for products of bfloat16 tiles; null where the ISA has none. data: 2 KiB.
  double (*tileProbe)(int64_t iterations, const uint16_t* data, float* sink);
};

constexpr int64_t kDecodeChunk = 1024;  // keys of one decode task
constexpr int64_t kMaxDecodeRows = 48;  // more rows than this go through the prefill kernel

// Floats of one chunk's partial result.
inline int64_t decodePartialFloats(int64_t rows, int64_t valueDim) { return rows * (valueDim + 2); }

}  // namespace sdpa
