// A decode step of a short cache takes about a microsecond: an allocation would be a tenth of it.
#include <stdlib.h>

#include <atomic>
#include <new>
#include <vector>

#include "../runtime/attention.h"
#include "../runtime/kv_cache.h"
#include "isas.h"
#include "test.h"

namespace {

std::atomic<int64_t> numAllocations{0};

}  // namespace

// In place of the C++ library's, for the whole of this program.
void* operator new(size_t bytes) {
  numAllocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = malloc(bytes == 0 ? 1 : bytes);
  if (!memory) abort();
  return memory;
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  numAllocations.fetch_add(1, std::memory_order_relaxed);
  return malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }

namespace {

using namespace sdpa;

constexpr int64_t kNumHeads = 8, kNumKvHeads = 2, kHeadDim = 64;

struct ShortStep {
  KvCacheMemory cache;
  std::vector<float> q = std::vector<float>(kNumHeads * kHeadDim, 0.5f);
  std::vector<float> token = std::vector<float>(kNumKvHeads * kHeadDim, 0.25f);
  std::vector<float> out = std::vector<float>(kNumHeads * kHeadDim);
  Sequence sequence{};
  Problem problem{};

  ShortStep() {
    KvCacheConfig config;
    config.numKvHeads = kNumKvHeads;
    config.headDim = config.valueDim = kHeadDim;
    CHECK(cache.reserve(config));
    problem.numSequences = 1;
    problem.numHeads = kNumHeads;
    problem.numKvHeads = kNumKvHeads;
    problem.groupSize = kNumHeads / kNumKvHeads;
    problem.headDim = problem.valueDim = kHeadDim;
    problem.scale = 0.125f;
    problem.windowLeft = kOpen;
    problem.sequences = &sequence;
    problem.q = q.data();
    problem.out = out.data();
    problem.qHeadStride = problem.qRowStride = problem.outHeadStride = problem.outRowStride = kHeadDim;
    sequence.qLen = 1;
  }

  void run() {
    const KvSource rows{token.data(), 0, kHeadDim * 4, kHeadDim * 4};
    CHECK(cache.append(rows, rows, 1));
    problem.k = cache.kRow(0, 0);
    problem.v = cache.vRow(0, 0);
    problem.kRowStride = cache.kRowStrideBytes() / 4;
    problem.vRowStride = cache.vRowStrideBytes() / 4;
    problem.kHeadStride = cache.kHeadStrideBytes() / 4;
    problem.vHeadStride = cache.vHeadStrideBytes() / 4;
    sequence.kvLen = cache.length();
    sequence.queryOffset = sequence.kvLen - 1;
    CHECK(runAttention(problem) == RunStatus::kDone);
  }
};

}  // namespace

TEST(a_short_decode_step_allocates_nothing) {
  const char* const inUse = activeKernels().isa;
  for (const sdpa::test::Isa& isa : sdpa::test::isas()) {
    CHECK(selectKernels(isa.kernels.isa));
    ShortStep step;
    for (int n = 0; n < 16; ++n) step.run();
    const int64_t before = numAllocations.load();
    for (int n = 0; n < 16; ++n) step.run();
    CHECK_EQ(numAllocations.load() - before, 0);
    CHECK_EQ(step.out[0], 0.25f);
  }
  selectKernels(inUse);
}
