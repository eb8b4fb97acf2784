// One pool of worker threads a process, shared by every worker_thread and every concurrent call.
// The protocol is told in thread_pool.cc.
#pragma once

#include <stdint.h>

#include <atomic>

namespace sdpa {

// Runs one task of a job. `slot` names the participant that runs it: 0 is the caller, and no two tasks of a job that
// run at the same time share one, so it may index per-participant scratch. It is below ThreadPool::participants.
using TaskFn = void (*)(void* context, int64_t task, int slot);

struct ParallelOptions {
  int maxThreads = 0;                            // at most this many, the caller included; 0 = all
  const std::atomic<bool>* cancelled = nullptr;  // once true, the job stops between two tasks; may be null
  double microseconds = 1e9;                     // of all tasks one after the other, roughly; a short job wakes nobody
};

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;

  // The process's pool. Never destroyed: workers may still run while the process exits.
  static ThreadPool& shared();

  // Runs fn(context, task, slot) for each task of [0, count), claimed in index order, and returns when all have run.
  // False if `cancelled` became true before that: some tasks have not run then, and none will.
  // Any thread may call, many at once. A call from within a task runs serially, with slot 0. It cannot fail: where
  // no worker can be started, the caller does all the work.
  // Not supported in the child of a fork() without exec(): the workers have stayed in the parent.
  bool parallelFor(int64_t count, TaskFn fn, void* context, ParallelOptions options = {});

  // The number of slots that a job of `count` tasks can see under `maxThreads`: what to size per-slot scratch by.
  // Read it once, and pass it as the job's maxThreads, where another thread may call setNumThreads meanwhile.
  int participants(int64_t count, int maxThreads) const;

  // Whether a worker is looking for work at this moment. A snapshot: a job that is too short to wake anybody for is
  // published if there is one.
  bool hasSpinningWorker() const;

  // Threads that one job may use, the caller included. Starts as availableCores().
  int numThreads() const;

  // Clamped to [1, kMaxThreads]. Takes effect for later jobs; a running one keeps its helpers. More than availableCores()
  // are used where only a CPU quota forbids more; more than the affinity mask has (asked for again here) would take
  // turns, and are not started.
  void setNumThreads(int numThreads);

  // For tests: as if so many cores were available, until the next setNumThreads.
  void assumeCores(int cores);

  // The affinity mask cut to the cgroup's CPU quota, at least 1 (available_cores.h).
  static int availableCores();

 private:
  struct Core;
  explicit ThreadPool(Core& core) : core_(core) {}
  Core& core_;
};

}  // namespace sdpa
