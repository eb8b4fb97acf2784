#include "../runtime/thread_pool.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "../runtime/available_cores.h"
#include "test.h"

namespace {

using sdpa::ParallelOptions;
using sdpa::ThreadPool;
using std::chrono::microseconds;

// A capturing lambda as a job: parallelFor takes a function pointer and a context.
template <typename Body>
bool forEachTask(int64_t count, Body body, ParallelOptions options = {}) {
  const auto call = [](void* context, int64_t task, int slot) { (*static_cast<Body*>(context))(task, slot); };
  return ThreadPool::shared().parallelFor(count, call, &body, options);
}

void busyFor(microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// Sets the number of threads for one test; restores it, since the pool is the process's.
struct NumThreads {
  explicit NumThreads(int count) : previous(ThreadPool::shared().numThreads()) {
    ThreadPool::shared().setNumThreads(count);
    ThreadPool::shared().assumeCores(count);
  }
  ~NumThreads() { ThreadPool::shared().setNumThreads(previous); }
  int previous;
};

TEST(threadPool_runsEachTaskOnce) {
  NumThreads threads(4);
  for (int64_t count : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<std::atomic<int>> runs(count);
    const bool complete = forEachTask(count, [&](int64_t task, int) { runs[task].fetch_add(1); });
    CHECK(complete);
    for (int64_t task = 0; task < count; ++task) CHECK_EQ(runs[task].load(), 1);
  }
}

TEST(threadPool_moreTasksThanOnePublishedJobHolds) {
  NumThreads threads(2);
  constexpr int64_t kCount = (int64_t{1} << 24) + 1000;
  int64_t sums[2] = {0, 0};
  forEachTask(kCount, [&](int64_t task, int slot) { sums[slot] += task; });
  CHECK_EQ(sums[0] + sums[1], kCount * (kCount - 1) / 2);
}

TEST(threadPool_resultsOfWorkersAreVisibleToTheCaller) {
  NumThreads threads(4);
  for (int round = 0; round < 2000; ++round) {
    int plain[16] = {};  // not atomic: the join alone must publish them (ThreadSanitizer watches)
    forEachTask(16, [&](int64_t task, int) { plain[task] = round + 1; });
    for (int value : plain) CHECK_EQ(value, round + 1);
  }
}

TEST(threadPool_helpersReallyJoin) {
  NumThreads threads(2);
  // Each of two tasks waits for the other: only two participants can end this.
  std::atomic<int> arrived{0};
  forEachTask(2, [&](int64_t, int) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  CHECK_EQ(arrived.load(), 2);
}

TEST(threadPool_workersSpinAfterAJobAndParkLater) {
  if (sdpa::availableCores() < 2) return;  // there is no core to spin on beside the caller's
  NumThreads threads(2);
  const ThreadPool& pool = ThreadPool::shared();
  // Until it is seen: on a busy machine a worker may miss many jobs, and take its time to park.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  bool seenSpinning = false;
  while (!seenSpinning && std::chrono::steady_clock::now() < end) {
    forEachTask(2, [&](int64_t, int) { busyFor(microseconds(20)); });
    for (int look = 0; look < 100; ++look) seenSpinning = seenSpinning || pool.hasSpinningWorker();
  }
  CHECK(seenSpinning);
  bool seenParked = false;
  while (!seenParked && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    seenParked = !pool.hasSpinningWorker();
  }
  CHECK(seenParked);
}

TEST(threadPool_aShortJobWakesNobodyButAStreakDoes) {
  NumThreads threads(2);
  ParallelOptions saidToBeShort;
  saidToBeShort.microseconds = 20;
  std::atomic<int> helped{0};
  const auto meet = [&](int64_t, int) {
    helped.fetch_add(1);
    while (helped.load() < 2) std::this_thread::yield();
  };
  forEachTask(2, meet);  // the worker runs now
  int roundsWithHelp = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (ThreadPool::shared().hasSpinningWorker()) continue;
    helped.store(0);
    // Long enough for a worker to come if it were woken.
    forEachTask(
        4,
        [&](int64_t, int slot) {
          busyFor(microseconds(500));
          if (slot != 0) helped.fetch_add(1);
        },
        saidToBeShort);
    roundsWithHelp += helped.load() != 0;
  }
  CHECK(roundsWithHelp <= 5);  // a worker that was put aside on its way to park comes unasked
  helped.store(0);
  for (int round = 0; round < 100000 && helped.load() == 0; ++round) {
    forEachTask(
        4,
        [&](int64_t, int slot) {
          busyFor(microseconds(5));
          if (slot != 0) helped.fetch_add(1);
        },
        saidToBeShort);
  }
  CHECK(helped.load() > 0);
}

TEST(threadPool_moreThreadsThanCoresAreNotUsed) {
  NumThreads threads(8);
  ThreadPool& pool = ThreadPool::shared();
  pool.assumeCores(3);
  CHECK_EQ(pool.participants(100, 0), 3);
  CHECK_EQ(pool.participants(100, 6), 3);
  CHECK_EQ(pool.participants(100, 2), 2);
  std::vector<std::thread::id> ranOn(64);
  forEachTask(64, [&](int64_t task, int) {
    ranOn[static_cast<size_t>(task)] = std::this_thread::get_id();
    std::this_thread::sleep_for(microseconds(200));
  });
  CHECK(std::set<std::thread::id>(ranOn.begin(), ranOn.end()).size() <= 3);
}

TEST(threadPool_aParkedHelperWakes) {
  NumThreads threads(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(microseconds(300));
    std::atomic<int> arrived{0};
    forEachTask(3, [&](int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 3) std::this_thread::yield();
    });
    CHECK_EQ(arrived.load(), 3);
  }
}

TEST(threadPool_slotsAreExclusiveAndBelowParticipants) {
  NumThreads threads(6);
  for (int maxThreads : {0, 1, 2, 3, 6, 50}) {
    const int participants = ThreadPool::shared().participants(200, maxThreads);
    CHECK_EQ(participants, maxThreads == 0 || maxThreads > 6 ? 6 : maxThreads);
    std::vector<std::atomic<int>> inside(participants);
    std::atomic<int> violations{0};
    std::atomic<int> simultaneous{0};
    const std::thread::id caller = std::this_thread::get_id();
    forEachTask(
        200,
        [&](int64_t, int slot) {
          if (simultaneous.fetch_add(1) >= participants) violations.fetch_add(1);
          if (slot < 0 || slot >= participants) {
            violations.fetch_add(1);
          } else {
            if ((slot == 0) != (std::this_thread::get_id() == caller)) violations.fetch_add(1);
            if (inside[slot].fetch_add(1) != 0) violations.fetch_add(1);
            busyFor(microseconds(5));
            inside[slot].fetch_sub(1);
          }
          simultaneous.fetch_sub(1);
        },
        {maxThreads, nullptr});
    CHECK_EQ(violations.load(), 0);
  }
}

TEST(threadPool_awakeWorkersRespectMaxThreads) {
  NumThreads threads(4);
  for (int round = 0; round < 5; ++round) {
    // Four sleeping tasks bring up every worker; they are still spinning when the limited job comes.
    forEachTask(4, [](int64_t, int) { std::this_thread::sleep_for(microseconds(500)); });
    std::vector<std::thread::id> ranOn(40);
    forEachTask(
        40,
        [&](int64_t task, int) {
          ranOn[task] = std::this_thread::get_id();
          std::this_thread::sleep_for(microseconds(100));
        },
        {2, nullptr});
    CHECK(std::set<std::thread::id>(ranOn.begin(), ranOn.end()).size() <= 2);
  }
}

TEST(threadPool_tasksAreClaimedInIndexOrder) {
  NumThreads threads(4);
  int64_t previous[4] = {-1, -1, -1, -1};
  std::atomic<int> violations{0};
  forEachTask(5000, [&](int64_t task, int slot) {
    if (task <= previous[slot]) violations.fetch_add(1);
    previous[slot] = task;
  });
  CHECK_EQ(violations.load(), 0);
}

TEST(threadPool_nestedCallsRunSerially) {
  NumThreads threads(4);
  std::atomic<int> inner{0};
  std::atomic<int> violations{0};
  forEachTask(8, [&](int64_t, int) {
    const std::thread::id self = std::this_thread::get_id();
    forEachTask(10, [&](int64_t, int slot) {
      if (slot != 0 || std::this_thread::get_id() != self) violations.fetch_add(1);
      inner.fetch_add(1);
    });
  });
  CHECK_EQ(inner.load(), 80);
  CHECK_EQ(violations.load(), 0);
}

TEST(threadPool_cancelStopsBetweenTasks) {
  for (int numThreads : {1, 4}) {
    NumThreads threads(numThreads);
    std::atomic<bool> cancelled{false};
    std::atomic<int> runs{0};
    const auto body = [&](int64_t task, int) {
      runs.fetch_add(1);
      if (task == 10) cancelled.store(true);
      while (task > 10 && !cancelled.load()) std::this_thread::yield();  // else the others might do all meanwhile
    };
    CHECK(!forEachTask(1000000, body, {0, &cancelled}));
    // Each of the others may have claimed a task before the 11th and dropped it, or claimed one after it and run it.
    CHECK(runs.load() >= 11 - (numThreads - 1));
    CHECK(runs.load() <= 11 + (numThreads - 1));
    const int before = runs.load();
    CHECK(!forEachTask(5, body, {0, &cancelled}));
    CHECK_EQ(runs.load(), before);
    cancelled.store(false);
    CHECK(forEachTask(5, body, {0, &cancelled}));
    CHECK_EQ(runs.load(), before + 5);
  }
}

TEST(threadPool_cancelFromAnotherThreadNeverHangs) {
  NumThreads threads(3);
  for (int round = 0; round < 50; ++round) {
    auto cancelled = std::make_unique<std::atomic<bool>>(false);
    std::thread canceller([&] {
      busyFor(microseconds(round * 7));
      cancelled->store(true);
    });
    std::atomic<int64_t> runs{0};
    const bool complete = forEachTask(
        3000, [&](int64_t, int) { runs.fetch_add(1); }, {0, cancelled.get()});
    if (complete) CHECK_EQ(runs.load(), 3000);
    canceller.join();
    cancelled.reset();  // a worker that still read it would be seen by a sanitizer
  }
}

TEST(threadPool_manyCallersAtOnce) {
  NumThreads threads(4);
  constexpr int kCallers = 8;
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([caller, &wrong] {
      for (int round = 0; round < 300; ++round) {
        const int count = 1 + (round * 7 + caller) % 40;
        std::vector<int> runs(count);
        const int maxThreads = round % 3;
        forEachTask(count, [&](int64_t task, int) { runs[task]++; }, {maxThreads, nullptr});
        for (int value : runs) wrong.fetch_add(value != 1);
      }
    });
  }
  for (std::thread& thread : callers) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

TEST(threadPool_moreCallersThanJobRecords) {
  NumThreads threads(3);
  constexpr int kCallers = 80;
  std::atomic<int> inside{0};
  std::atomic<int64_t> runs{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&] {
      forEachTask(4, [&](int64_t, int) {
        inside.fetch_add(1);
        // Holds the first tasks until all the callers are in a job of their own.
        while (inside.load() < kCallers) std::this_thread::yield();
        runs.fetch_add(1);
      });
    });
  }
  for (std::thread& thread : callers) thread.join();
  CHECK_EQ(runs.load(), kCallers * 4);
}

TEST(threadPool_aSecondJobGetsHelpersBesideALongOne) {
  NumThreads threads(3);
  std::atomic<bool> stop{false};
  std::atomic<int> started{0};
  // Many short tasks, so that its helpers look up often.
  std::thread longJob([&] {
    forEachTask(
        int64_t{1} << 40,
        [&](int64_t, int) {
          started.store(1);
          busyFor(microseconds(20));
        },
        {0, &stop});
  });
  while (started.load() == 0) std::this_thread::yield();
  std::atomic<int> arrived{0};
  forEachTask(2, [&](int64_t, int) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
  CHECK_EQ(arrived.load(), 2);
  stop.store(true);
  longJob.join();
}

TEST(threadPool_numThreadsIsClamped) {
  NumThreads threads(3);
  ThreadPool& pool = ThreadPool::shared();
  pool.setNumThreads(0);
  CHECK_EQ(pool.numThreads(), 1);
  pool.setNumThreads(1 << 30);
  CHECK_EQ(pool.numThreads(), ThreadPool::kMaxThreads);
  CHECK_EQ(pool.participants(1 << 20, 0), sdpa::affinityCores());
  pool.assumeCores(ThreadPool::kMaxThreads);
  CHECK_EQ(pool.participants(0, 0), 1);
  CHECK_EQ(pool.participants(5, 0), 5);
}

TEST(threadPool_availableCoresIsPlausible) {
  CHECK(sdpa::availableCores() >= 1);
  CHECK(sdpa::availableCores() <= static_cast<int>(std::thread::hardware_concurrency()) ||
        std::thread::hardware_concurrency() == 0);
}

}  // namespace
