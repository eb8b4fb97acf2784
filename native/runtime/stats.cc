#include "runtime/stats.h"

#include <atomic>
#include <exception>
#include <vector>

#include "intervals.h"
#include "runtime/dispatch.h"
#include "runtime/scratch.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

// Less work than this is done sooner than a parked thread wakes.
constexpr double kSerialFlops = 2e6;

// Rows of a task: enough of them that packing K costs little, few enough that their queries in float32 stay within 4 MiB.
constexpr int64_t kGoodTaskRows = 480;
constexpr int64_t kMaxTaskRows = 4128;
constexpr int64_t kMaxTaskFloats = int64_t{1} << 20;

struct StatsPlan {
  std::vector<PrefillTask> tasks;
  double flops = 0;
  size_t scratchBytes = 0;
};

// About a quarter of a thread's share, so that the threads end together; whole tiles, so that the cut changes no bit.
int64_t taskRowsOf(const KernelTable& kernels, const Problem& problem, int threads) {
  int64_t totalRows = 0;
  for (int64_t s = 0; s < problem.numSequences; ++s) totalRows += problem.sequences[s].qLen * problem.numHeads;
  const int64_t most = minimum(kMaxTaskRows, kMaxTaskFloats / problem.headDim);
  const int64_t share = totalRows / threads;
  const int64_t target = threads == 1 ? most : maximum(share / 4, minimum(kGoodTaskRows, share / 2));
  return maximum(1, minimum(most, target) / kernels.tileRows) * kernels.tileRows;
}

StatsPlan makeStatsPlan(const KernelTable& kernels, const Problem& problem, int threads) {
  StatsPlan plan;
  const int64_t taskRows = taskRowsOf(kernels, problem, threads);
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    const Sequence& sequence = problem.sequences[s];
    const int64_t rows = sequence.qLen * problem.groupSize;
    if (rows == 0) continue;
    const size_t scratchBytes = kernels.statsScratchBytes(problem, minimum(rows, taskRows));
    plan.scratchBytes = scratchBytes > plan.scratchBytes ? scratchBytes : plan.scratchBytes;
    plan.flops += 2.0 * static_cast<double>(rows * problem.numKvHeads) * static_cast<double>(sequence.kvLen) *
                  static_cast<double>(problem.headDim);
    for (int64_t head = 0; head < problem.numKvHeads; ++head) {
      // Where causality makes rows unequal, the last see most: they go first.
      for (int64_t begin = (rows - 1) / taskRows * taskRows; begin >= 0; begin -= taskRows) {
        plan.tasks.push_back({s, head, begin, minimum(begin + taskRows, rows)});
      }
    }
  }
  return plan;
}

struct StatsRun {
  const KernelTable& kernels;
  const Problem& problem;
  const StatsOutput& output;
  const StatsPlan& plan;
  std::atomic<bool> outOfMemory{false};

  void execute(int64_t task) {
    void* memory = outOfMemory.load(std::memory_order_relaxed) ? nullptr : scratch(plan.scratchBytes);
    if (!memory) return outOfMemory.store(true, std::memory_order_relaxed);
    kernels.stats(problem, output, plan.tasks[static_cast<size_t>(task)], memory);
  }
};

RunStatus planAndRun(const Problem& given, const StatsOutput& output) {
  Problem problem = given;
  problem.v = problem.k;  // nobody reads them, but their places are reckoned
  problem.valueDim = problem.vHeadStride = problem.vRowStride = 0;
  const KernelTable& kernels = activeKernels();
  ThreadPool& pool = ThreadPool::shared();
  const int available = pool.numThreads();
  int threads = problem.threads > 0 && problem.threads < available ? problem.threads : available;
  const StatsPlan plan = makeStatsPlan(kernels, problem, threads);
  if (plan.flops < kSerialFlops) threads = 1;
  StatsRun run{kernels, problem, output, plan};
  pool.parallelFor(
      static_cast<int64_t>(plan.tasks.size()),
      [](void* context, int64_t task, int) { static_cast<StatsRun*>(context)->execute(task); }, &run, {threads, nullptr});
  return run.outOfMemory.load() ? RunStatus::kOutOfMemory : RunStatus::kDone;
}

}  // namespace

RunStatus runStats(const Problem& problem, const StatsOutput& output) {
  try {
    return planAndRun(problem, output);
  } catch (const std::exception&) {
    return RunStatus::kOutOfMemory;
  }
}

}  // namespace sdpa
