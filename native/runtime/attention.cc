#include "runtime/attention.h"

#include <atomic>
#include <memory>
#include <new>

#include "runtime/dispatch.h"
#include "runtime/schedule.h"
#include "runtime/scratch.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

// Less work than this is done sooner than a parked thread wakes.
constexpr double kSerialFlops = 2e6;

// What one call needs beside its inputs and outputs; kept by the calling thread from call to call.
struct Workspace {
  Plan plan;
  std::unique_ptr<float[]> partials;
  int64_t partialCapacity = 0;
  std::unique_ptr<std::atomic<int64_t>[]> unfinished;  // chunks that each decode head still waits for
  int64_t headCapacity = 0;

  bool prepare() {
    if (plan.partialFloats > partialCapacity) {
      partialCapacity = 0;
      partials.reset(new (std::nothrow) float[static_cast<size_t>(plan.partialFloats)]);
      if (!partials) return false;
      partialCapacity = plan.partialFloats;
    }
    const int64_t numHeads = static_cast<int64_t>(plan.heads.size());
    if (numHeads > headCapacity) {
      headCapacity = 0;
      unfinished.reset(new (std::nothrow) std::atomic<int64_t>[static_cast<size_t>(numHeads)]);
      if (!unfinished) return false;
      headCapacity = numHeads;
    }
    for (size_t i = 0; i < plan.decode.size(); ++i) plan.decode[i].partial = partials.get() + plan.partialOffset[i];
    for (size_t i = 0; i < plan.heads.size(); ++i) {
      DecodeHead& head = plan.heads[i];
      if (head.numTasks) head.task.partial = plan.decode[static_cast<size_t>(head.firstTask)].partial;
      unfinished[i].store(head.numTasks, std::memory_order_relaxed);
    }
    return true;
  }
};

// The i-th task to be claimed, when `threads` threads claim in turn: each then walks a stretch of its own, so that what it
// prefetches beyond the end of a chunk is what it reads next.
int64_t inStretches(int64_t i, int64_t count, int64_t threads) {
  const int64_t length = count / threads, rest = count % threads;
  const bool isRest = i >= length * threads;
  const int64_t thread = isRest ? i - length * threads : i % threads;
  const int64_t place = isRest ? length : i / threads;
  return thread * length + (thread < rest ? thread : rest) + place;
}

struct Run {
  const KernelTable& kernels;
  const Problem& problem;
  Workspace& workspace;
  int threads;
  std::atomic<bool> outOfMemory{false};

  void merge(const DecodeHead& head) const {
    kernels.decodeMerge(problem, head.task, head.numTasks, head.partialFloats);
  }

  void execute(int64_t index) {
    Plan& plan = workspace.plan;
    if (outOfMemory.load(std::memory_order_relaxed) || (problem.cancelled && *problem.cancelled)) return;
    void* scratchMemory = scratch(plan.scratchBytes);
    if (!scratchMemory) {
      outOfMemory.store(true, std::memory_order_relaxed);
      return;
    }
    const int64_t numPrefill = static_cast<int64_t>(plan.prefill.size());
    if (index < numPrefill) {
      kernels.prefill(problem, plan.prefill[static_cast<size_t>(index)], scratchMemory);
      return;
    }
    const int64_t numDecode = static_cast<int64_t>(plan.decode.size());
    const size_t task = static_cast<size_t>(inStretches(index - numPrefill, numDecode, threads));
    kernels.decode(problem, plan.decode[task], scratchMemory);
    const size_t head = static_cast<size_t>(plan.headOfTask[task]);
    // Whoever finishes a head's last chunk merges them all, in chunk order.
    if (workspace.unfinished[head].fetch_sub(1, std::memory_order_acq_rel) == 1) merge(plan.heads[head]);
  }
};

}  // namespace

RunStatus runAttention(const Problem& problem) {
  static thread_local Workspace workspace;
  const KernelTable& kernels = activeKernels();
  ThreadPool& pool = ThreadPool::shared();
  const int available = pool.numThreads();
  int threads = problem.threads > 0 && problem.threads < available ? problem.threads : available;
  makePlan(kernels, problem, threads, workspace.plan);
  if (!workspace.prepare()) return RunStatus::kOutOfMemory;

  const Plan& plan = workspace.plan;
  if (plan.flops < kSerialFlops) threads = 1;
  Run run{kernels, problem, workspace, threads};
  for (const DecodeHead& head : plan.heads) {
    if (head.numTasks == 0) run.merge(head);  // rows that see no key: zeros, or the sink
  }
  const int64_t count = static_cast<int64_t>(plan.prefill.size() + plan.decode.size());
  pool.parallelFor(
      count, [](void* context, int64_t task, int) { static_cast<Run*>(context)->execute(task); }, &run, {threads, nullptr});
  if (run.outOfMemory.load()) return RunStatus::kOutOfMemory;
  return problem.cancelled && *problem.cancelled ? RunStatus::kCancelled : RunStatus::kDone;
}

}  // namespace sdpa
