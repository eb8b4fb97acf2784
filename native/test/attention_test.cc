// runAttention: the same bits on any number of threads, and right ones.
#include "../runtime/attention.h"

#include "../runtime/thread_pool.h"
#include "emulator.h"
#include "isas.h"
#include "naive_attention.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::RunStatus;
using sdpa::ThreadPool;

// Restores the ISA and the number of threads, which belong to the process.
struct ProcessSettings {
  const char* isa = sdpa::activeKernels().isa;
  int threads = ThreadPool::shared().numThreads();
  ~ProcessSettings() {
    sdpa::selectKernels(isa);
    ThreadPool::shared().setNumThreads(threads);
  }
};

AttentionCase caseOf(std::vector<Lengths> sequences) {
  AttentionCase c;
  c.sequences = std::move(sequences);
  c.headDim = 24;
  c.valueDim = 20;
  c.groupSize = 3;
  return c;
}

std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all;
  AttentionCase c = caseOf({{2, 5000}});  // decode, long enough to wake others for
  c.numKvHeads = 3;
  c.sinks = true;
  all.push_back(c);
  c = caseOf({{450, 450}});  // prefill
  c.windowRight = 0;
  all.push_back(c);
  c = caseOf({{1, 1300}, {200, 333}, {0, 50}, {5, 0}, {300, 1}, {16, 700}, {17, 700}});  // ragged
  c.windowLeft = 250;
  c.windowRight = 0;
  c.sinkTokens = 4;
  c.alibi = true;
  all.push_back(c);
  c.qDType = c.kvDType = sdpa::kBFloat16;
  c.mask = Operand::kFull;
  all.push_back(c);
  return all;
}

std::vector<uint8_t> resultOf(AttentionInstance& instance) {
  instance.clearOutputs();
  CHECK(runAttention(instance.problem) == RunStatus::kDone);
  std::vector<uint8_t> bytes(instance.out->values.bytes.begin(), instance.out->values.bytes.end());
  bytes.insert(bytes.end(), instance.lse->bytes.begin(), instance.lse->bytes.end());
  return bytes;
}

TEST(attention_isRightAndTheSameOnAnyNumberOfThreads) {
  const ProcessSettings settings;
  for (const AttentionCase& c : cases()) {
    if (!isWorthwhile()) continue;
    AttentionInstance instance(c);
    const Expected expected = expectedOf(instance);
    for (const Isa& isa : isas()) {
      CHECK(sdpa::selectKernels(isa.kernels.isa));
      ThreadPool::shared().setNumThreads(1);
      const std::vector<uint8_t> serial = resultOf(instance);
      const std::string fault = faultOf(instance, expected);
      if (!fault.empty()) fail(__FILE__, __LINE__, std::string(isa.kernels.isa) + ": " + fault + "\n    " + describe(c));
      for (int threads = 1; threads <= 8; ++threads) {
        ThreadPool::shared().setNumThreads(threads);
        ThreadPool::shared().assumeCores(threads);
        for (int repeat = 0; repeat < 3 && isWorthwhile(); ++repeat) CHECK(resultOf(instance) == serial);
      }
      instance.problem.threads = 2;  // the limit of one call
      CHECK(resultOf(instance) == serial);
      instance.problem.threads = 0;
    }
  }
}

TEST(attention_isTheSameWhetherARowIsDecodedOrPrefilled) {
  // Not the same bits: another order of sums. But the same rows, within the tolerance, on both sides of the border.
  const ProcessSettings settings;
  for (int64_t qLen : {sdpa::kMaxDecodeRows / 3, sdpa::kMaxDecodeRows / 3 + 1}) {
    AttentionCase c = caseOf({{qLen, 700}});
    c.windowRight = 0;
    AttentionInstance instance(c);
    const Expected expected = expectedOf(instance);
    for (const Isa& isa : isas()) {
      CHECK(sdpa::selectKernels(isa.kernels.isa));
      resultOf(instance);
      CHECK_EQ(faultOf(instance, expected), std::string());
    }
  }
}

TEST(attention_isCancelledByAFlag) {
  for (const AttentionCase& c : cases()) {
    if (!isWorthwhile()) continue;
    AttentionInstance instance(c);
    const volatile int32_t cancelled = 1;
    instance.problem.cancelled = &cancelled;
    CHECK(runAttention(instance.problem) == RunStatus::kCancelled);
    const volatile int32_t notCancelled = 0;
    instance.problem.cancelled = &notCancelled;
    CHECK(runAttention(instance.problem) == RunStatus::kDone);
  }
}

TEST(dispatch_findsWhatTheMachineHas) {
  const ProcessSettings settings;
  const char* names[8];
  const int count = sdpa::availableIsas(names, 8);
  CHECK_EQ(count, static_cast<int>(isas().size()));
  CHECK_EQ(sdpa::availableIsas(names, 1), 1);
  CHECK_EQ(std::string(names[0]), std::string(isas()[0].kernels.isa));
  CHECK(sdpa::findKernels("portable") != nullptr);
  CHECK(sdpa::findKernels("mmx") == nullptr);
  const std::string before = sdpa::activeKernels().isa;
  CHECK(!sdpa::selectKernels("mmx"));
  CHECK_EQ(before, std::string(sdpa::activeKernels().isa));
  CHECK(sdpa::selectKernels("portable"));
  CHECK_EQ(std::string(sdpa::activeKernels().isa), std::string("portable"));
}

void checkTileProbe(const sdpa::KernelTable& kernels) {
  const GuardedBuffer<uint16_t> tiles(1024);  // exactly what the probe may read
  for (uint16_t& element : tiles) element = 0x3f00;  // 0.5
  float sink = -1.0f;
  const double flops = kernels.tileProbe(10, tiles.data(), &sink);
  CHECK(flops > kernels.fmaProbe(10, &sink));
  CHECK_EQ(kernels.tileProbe(20, tiles.data(), &sink), 2 * flops);
  CHECK(isfinite(sink) && sink != -1.0f);
}

TEST(probes_countWhatTheyDo) {
  for (const Isa& isa : isas()) {
    float sink = -1.0f;
    CHECK(isa.kernels.fmaProbe(10, &sink) >= 10.0 * 2 * isa.vec.width);
    CHECK(isfinite(sink) && sink != -1.0f);
    if (isa.kernels.tileProbe) checkTileProbe(isa.kernels);
    const GuardedBuffer<float> ones(4096);
    for (float& x : ones) x = 1.0f;
    CHECK(isa.kernels.readProbe(ones.data(), ones.size()) >= 4096.0f / static_cast<float>(isa.vec.width));
  }
}

}  // namespace
