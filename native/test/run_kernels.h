// Runs the kernels of one ISA over a whole problem, one task after another, in scratch that holds signalling NaNs.
#pragma once

#include "../kernel_table.h"
#include "attention_case.h"
#include "emulator.h"

namespace sdpa {
namespace test {

// Exactly as many bytes as a kernel asked for, up against an inaccessible page.
class PoisonedScratch {
 public:
  explicit PoisonedScratch(size_t bytes) : memory_(bytes) {}
  void* fresh() {
    constexpr uint32_t kSignallingNaN = 0x7fa00001u;
    for (size_t i = 0; i + 4 <= memory_.size(); i += 4) memcpy(memory_.data() + i, &kSignallingNaN, 4);
    return memory_.data();
  }

 private:
  GuardedBuffer<uint8_t> memory_;
};

// taskRows is rounded up to whole tiles.
inline void runPrefill(const KernelTable& kernels, const Problem& problem, int64_t taskRows) {
  const int64_t step = (taskRows + kernels.tileRows - 1) / kernels.tileRows * kernels.tileRows;
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    const int64_t rows = problem.sequences[s].qLen * problem.groupSize;
    if (rows == 0) continue;
    PoisonedScratch scratch(kernels.prefillScratchBytes(problem, step < rows ? step : rows));
    for (int64_t head = 0; head < problem.numKvHeads; ++head) {
      for (int64_t row = 0; row < rows; row += step) {
        kernels.prefill(problem, {s, head, row, row + step < rows ? row + step : rows}, scratch.fresh());
      }
    }
  }
}

// Decode takes any number of rows, those of prefill too; more than this would only take long.
constexpr int64_t kManyRows = 200;
inline bool isDecodable(const Problem& problem) {
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    if (problem.sequences[s].qLen * problem.groupSize > kManyRows) return false;
  }
  return true;
}

// Every chunk, those included that no row sees.
inline void runDecode(const KernelTable& kernels, const Problem& problem) {
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    const Sequence& sequence = problem.sequences[s];
    const int64_t rows = sequence.qLen * problem.groupSize;
    if (rows == 0) continue;
    const int64_t floats = decodePartialFloats(rows, problem.valueDim);
    const int64_t numChunks = (sequence.kvLen + kDecodeChunk - 1) / kDecodeChunk;
    PoisonedScratch scratch(kernels.decodeScratchBytes(problem, rows));
    const GuardedBuffer<float> partials(static_cast<size_t>(floats * numChunks), reliableSide(GuardSide::kAfter));
    for (int64_t head = 0; head < problem.numKvHeads; ++head) {
      memset(partials.data(), 0xFF, partials.size() * sizeof(float));
      for (int64_t chunk = 0; chunk < numChunks; ++chunk) {
        const int64_t begin = chunk * kDecodeChunk;
        const int64_t end = begin + kDecodeChunk < sequence.kvLen ? begin + kDecodeChunk : sequence.kvLen;
        kernels.decode(problem, {s, head, begin, end, partials.data() + chunk * floats}, scratch.fresh());
      }
      kernels.decodeMerge(problem, {s, head, 0, 0, partials.data()}, numChunks, floats);
    }
  }
}

}  // namespace test
}  // namespace sdpa
