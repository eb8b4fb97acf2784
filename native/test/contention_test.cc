// The pool when there are not enough cores: more callers than cores, more threads than cores, other threads that spin,
// settings that change meanwhile. Every job is done, once, within a time that only a stall exceeds.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "../runtime/available_cores.h"
#include "../runtime/thread_pool.h"
#include "test.h"

namespace {

using sdpa::ParallelOptions;
using sdpa::ThreadPool;
using Clock = std::chrono::steady_clock;

constexpr auto kStall = std::chrono::seconds(20);
constexpr auto kTestTime = std::chrono::milliseconds(700);

// Threads that want a core each for as long as this lives.
class Neighbours {
 public:
  explicit Neighbours(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Neighbours() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// What the tasks of one job do to its memory; wrong() counts tasks that were not run once, alone in their slot.
struct Work {
  std::vector<int> runs;                  // plain: the join alone must publish them
  std::vector<std::atomic<int>> inSlot;
  std::atomic<int> violations{0};
  int spins;

  Work(int64_t count, int participants, int spinsOfATask)
      : runs(static_cast<size_t>(count)), inSlot(static_cast<size_t>(participants)), spins(spinsOfATask) {}

  static void run(void* context, int64_t task, int slot) {
    Work& work = *static_cast<Work*>(context);
    if (slot < 0 || slot >= static_cast<int>(work.inSlot.size())) {
      work.violations.fetch_add(1);
      return;
    }
    std::atomic<int>& inSlot = work.inSlot[static_cast<size_t>(slot)];
    if (inSlot.fetch_add(1) != 0) work.violations.fetch_add(1);
    for (volatile int i = 0; i < work.spins; i = i + 1) {
    }
    ++work.runs[static_cast<size_t>(task)];
    inSlot.fetch_sub(1);
  }
  int wrong() const {
    int count = violations.load();
    for (int n : runs) count += n != 1;
    return count;
  }
};

// Jobs of many sizes, short and long ones, until the time is over, but one at least. Returns how many were done.
int runJobs(unsigned seed, Clock::time_point end, std::atomic<int>& wrong, std::atomic<int64_t>& longestNanoseconds) {
  ThreadPool& pool = ThreadPool::shared();
  int jobs = 0;
  for (unsigned random = seed * 2654435761u + 1; jobs == 0 || Clock::now() < end; ++jobs) {
    random = random * 1664525u + 1013904223u;
    const int64_t count = 1 + (random >> 20) % 40;
    ParallelOptions options;
    options.maxThreads = pool.participants(count, static_cast<int>((random >> 8) % 4));
    options.microseconds = (random >> 12) % 3 == 0 ? 20 : 1000;
    Work work(count, options.maxThreads, static_cast<int>((random >> 16) % 3000));
    const Clock::time_point begin = Clock::now();
    const bool complete = pool.parallelFor(count, Work::run, &work, options);
    const int64_t time = std::chrono::nanoseconds(Clock::now() - begin).count();
    int64_t longest = longestNanoseconds.load();
    while (time > longest && !longestNanoseconds.compare_exchange_weak(longest, time)) {
    }
    wrong.fetch_add(work.wrong() + !complete);
    if (random % 5 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random % 200));
  }
  return jobs;
}

void runCallers(int numCallers, int numNeighbours, bool changeSettings) {
  ThreadPool& pool = ThreadPool::shared();
  const int before = pool.numThreads();
  const Neighbours neighbours(numNeighbours);
  std::atomic<int> wrong{0};
  std::atomic<int> jobs{0};
  std::atomic<int64_t> longestNanoseconds{0};
  const Clock::time_point end = Clock::now() + kTestTime;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < numCallers; ++caller) {
    callers.emplace_back(
        [&, caller] { jobs.fetch_add(runJobs(static_cast<unsigned>(caller), end, wrong, longestNanoseconds)); });
  }
  for (int n = 0; changeSettings && Clock::now() < end; ++n) {
    pool.setNumThreads(1 + n % 5);
    pool.assumeCores(1 + n % 4);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  for (std::thread& caller : callers) caller.join();
  pool.setNumThreads(before);
  CHECK_EQ(wrong.load(), 0);
  CHECK(jobs.load() >= numCallers);
  CHECK(std::chrono::nanoseconds(longestNanoseconds.load()) < kStall);
}

TEST(contention_manyCallersOnFewCores) {
  for (int numCallers : {1, 4, 12}) {
    ThreadPool::shared().assumeCores(3);
    runCallers(numCallers, 0, false);
  }
}

TEST(contention_besideNeighboursOnEveryCore) {
  for (int numCallers : {1, 3}) runCallers(numCallers, sdpa::availableCores(), false);
}

TEST(contention_settingsChangeMeanwhile) { runCallers(5, 1, true); }

// A worker that has claimed a task and is put aside holds up its own job and no other.
TEST(contention_aStuckTaskHoldsUpItsOwnJobOnly) {
  ThreadPool& pool = ThreadPool::shared();
  const int before = pool.numThreads();
  pool.setNumThreads(3);
  pool.assumeCores(3);
  std::atomic<bool> release{false};
  std::atomic<int> stuck{0};
  struct Context {
    std::atomic<bool>& release;
    std::atomic<int>& stuck;
  } context{release, stuck};
  std::thread held([&] {
    pool.parallelFor(
        3,
        [](void* c, int64_t, int) {
          static_cast<Context*>(c)->stuck.fetch_add(1);
          while (!static_cast<Context*>(c)->release.load()) std::this_thread::sleep_for(std::chrono::microseconds(50));
        },
        &context);
  });
  while (stuck.load() < 3) std::this_thread::yield();  // the caller and both workers
  std::atomic<int> wrong{0};
  std::atomic<int64_t> longestNanoseconds{0};
  CHECK(runJobs(1, Clock::now() + std::chrono::milliseconds(100), wrong, longestNanoseconds) > 0);
  CHECK_EQ(wrong.load(), 0);
  CHECK(std::chrono::nanoseconds(longestNanoseconds.load()) < kStall);
  release.store(true);
  held.join();
  pool.setNumThreads(before);
}

// Counts those that have arrived and holds them until `enough` have, or until a stall.
struct Meeting {
  int enough;
  std::atomic<int> arrived{0};

  void attend() {
    arrived.fetch_add(1);
    const Clock::time_point end = Clock::now() + kStall;
    while (arrived.load() < enough && Clock::now() < end) std::this_thread::yield();
  }
  static void run(void* meeting, int64_t, int) { static_cast<Meeting*>(meeting)->attend(); }
};

// Three cores. The first job holds two of them and has tasks left, so the second one may wake nobody. When the first one
// is over, its worker comes to the second job by itself; its caller's core serves nobody unless it is handed on.
TEST(contention_aCoreThatBecomesFreeServesTheOtherJob) {
  ThreadPool& pool = ThreadPool::shared();
  const int before = pool.numThreads();
  pool.setNumThreads(3);
  pool.assumeCores(3);
  for (int round = 0; round < 10; ++round) {
    Meeting all{3};
    pool.parallelFor(3, Meeting::run, &all);  // both workers exist
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    Meeting first{3};  // two participants and this thread
    std::thread held([&] {
      ParallelOptions options;
      options.maxThreads = 2;
      pool.parallelFor(4, Meeting::run, &first, options);
    });
    while (first.arrived.load() < 2) std::this_thread::yield();
    Meeting second{3};
    const Clock::time_point begin = Clock::now();
    std::thread waiting([&] { pool.parallelFor(3, Meeting::run, &second); });
    while (second.arrived.load() < 1) std::this_thread::yield();
    first.attend();
    held.join();
    waiting.join();
    CHECK_EQ(second.arrived.load(), 3);
    CHECK(Clock::now() - begin < kStall);
  }
  pool.setNumThreads(before);
}

}  // namespace
