// What the threads of the pool know of a job, and of themselves. How it is used is told in thread_pool.cc.
#pragma once

#include <stdint.h>

#include <atomic>
#include <chrono>

#include "countdown.h"
#include "event.h"
#include "thread_pool.h"

namespace sdpa {

constexpr int kMaxJobs = 64;  // one bit each; a 65th concurrent call runs serially
constexpr uint32_t kCallerParked = 1u << 31;

struct alignas(64) Job {
  Countdown tasks;
  Countdown seats;
  std::atomic<bool> dropped;
  TaskFn fn;
  void* context;
  const std::atomic<bool>* cancelled;
  int64_t firstTask;
  uint32_t count;
  int callerCore;                     // when it was published; -1 = unknown
  alignas(64) Event unfinished;       // on a line of its own: the caller spins on it
  std::atomic<uint64_t> helperCores;  // that workers have used, modulo 64
};

// The seat that a worker holds in a job; the generation tells whether it is still that job.
struct Seat {
  uint64_t generation = ~uint64_t{0};  // of no job
  int slot = 0;
};

// What a worker knows; nobody else touches it.
struct Worker {
  int index;
  uint64_t live = 0;      // the live jobs from which it has chosen
  bool woken = false;     // and has not passed that on yet
  int callerCore = -1;    // of the job in which it last took part
  std::chrono::nanoseconds spinTime = kSpinTime;
  uint32_t streaks = 0;   // as last seen
  Seat seats[kMaxJobs];
};

}  // namespace sdpa
