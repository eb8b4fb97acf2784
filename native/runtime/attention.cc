#include "runtime/attention.h"

#include <atomic>
#include <exception>
#include <limits>
#include <memory>
#include <new>

#include "compiler.h"
#include "runtime/dispatch.h"
#include "runtime/schedule.h"
#include "runtime/scratch.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

// Less work than this is done by the caller before another thread could be told of it.
constexpr double kSerialMicroseconds = 10;

// Decode tasks [next, end) that nobody has claimed. On a cache line of its own.
struct Stretch {
  std::atomic<int64_t> next;
  int64_t end;
  char padding[64 - sizeof(next) - sizeof(end)];
};

// What one call needs beside its inputs and outputs; kept by the calling thread from call to call.
struct Workspace {
  Plan plan;
  std::unique_ptr<float[]> partials;
  int64_t partialCapacity = 0;
  std::unique_ptr<std::atomic<int64_t>[]> unfinished;  // chunks that each decode head still waits for
  int64_t headCapacity = 0;
  std::unique_ptr<Stretch[]> stretches;  // one for each thread
  int stretchCapacity = 0;
  float noPartial = 0;  // of a head without chunks: nobody reads it, but its rows are reckoned from there

  bool prepare(int threads) {
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
      head.task.partial = head.numTasks ? plan.decode[static_cast<size_t>(head.firstTask)].partial : &noPartial;
      unfinished[i].store(head.numTasks, std::memory_order_relaxed);
    }
    return cutStretches(threads);
  }

  bool cutStretches(int threads) {
    if (threads > stretchCapacity) {
      stretchCapacity = 0;
      stretches.reset(new (std::nothrow) Stretch[static_cast<size_t>(threads)]);
      if (!stretches) return false;
      stretchCapacity = threads;
    }
    const int64_t count = static_cast<int64_t>(plan.decode.size());
    for (int64_t i = 0; i < threads; ++i) {
      stretches[i].next.store(count * i / threads, std::memory_order_relaxed);
      stretches[i].end = count * (i + 1) / threads;
    }
    return true;
  }
};

struct Run {
  const KernelTable& kernels;
  const Problem& problem;
  Workspace& workspace;
  int threads;
  std::atomic<bool> outOfMemory{false};

  void merge(const DecodeHead& head) const {
    kernels.decodeMerge(problem, head.task, head.numTasks, head.partialFloats);
  }

  // Each thread walks a stretch of its own, so that what it prefetches beyond the end of a chunk is what it reads next;
  // then it helps the others. Called once for each decode task, so there is one left.
  size_t claimDecode(int slot) {
    for (int i = slot;; i = i + 1 < threads ? i + 1 : 0) {
      Stretch& stretch = workspace.stretches[i];
      const int64_t task = stretch.next.fetch_add(1, std::memory_order_relaxed);
      if (task < stretch.end) return static_cast<size_t>(task);
    }
  }

  void execute(int64_t index, int slot) {
    Plan& plan = workspace.plan;
    if (outOfMemory.load(std::memory_order_relaxed) || (problem.cancelled && SDPA_READ_FLAG(problem.cancelled))) return;
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
    const size_t task = claimDecode(slot);
    kernels.decode(problem, plan.decode[task], scratchMemory);
    const size_t head = static_cast<size_t>(plan.headOfTask[task]);
    // Whoever finishes a head's last chunk merges them all, in chunk order.
    if (workspace.unfinished[head].fetch_sub(1, std::memory_order_acq_rel) == 1) merge(plan.heads[head]);
  }
};

RunStatus planAndRun(const Problem& problem) {
  static thread_local Workspace workspace;
  const KernelTable& kernels = activeKernels();
  ThreadPool& pool = ThreadPool::shared();
  int threads = pool.participants(std::numeric_limits<int64_t>::max(), problem.threads);
  makePlan(kernels, problem, threads, workspace.plan);
  const Plan& plan = workspace.plan;
  if (plan.microseconds < kSerialMicroseconds) threads = 1;
  if (!workspace.prepare(threads)) return RunStatus::kOutOfMemory;

  Run run{kernels, problem, workspace, threads};
  for (const DecodeHead& head : plan.heads) {
    if (head.numTasks == 0) run.merge(head);  // rows that see no key: zeros, or the sink
  }
  const int64_t count = static_cast<int64_t>(plan.prefill.size() + plan.decode.size());
  pool.parallelFor(
      count, [](void* context, int64_t task, int slot) { static_cast<Run*>(context)->execute(task, slot); }, &run,
      {threads, nullptr, plan.microseconds});
  if (run.outOfMemory.load()) return RunStatus::kOutOfMemory;
  return problem.cancelled && SDPA_READ_FLAG(problem.cancelled) ? RunStatus::kCancelled : RunStatus::kDone;
}

}  // namespace

RunStatus runAttention(const Problem& problem) {
  try {
    return planAndRun(problem);
  } catch (const std::exception&) {
    return RunStatus::kOutOfMemory;
  }
}

}  // namespace sdpa
