#include "../runtime/background.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "../runtime/event.h"
#include "test.h"

namespace {

using sdpa::Background;
using sdpa::BackgroundTask;
using sdpa::Event;

// Its threads never end, so neither does it.
Background& backgroundOf(int maxLong) { return *new Background(maxLong); }

// Closed until open() is called; as many as like pass then.
struct Gate {
  Event event;
  void open() {
    event.word.store(1);
    event.wake(1 << 20);
  }
  void pass() {
    while (event.word.load() == 0) event.wait(0);
  }
};

// What the tasks of a test have done. Shared with the threads, which may look at it a moment after the last has ended.
struct Record {
  std::atomic<int> begun{0}, atOnce{0}, mostAtOnce{0};
  Event ended;  // counts
  std::atomic<int> order[256];
};

struct Task final : BackgroundTask {
  Task(std::shared_ptr<Record> r, int n, bool isShort, Gate* g) : BackgroundTask(isShort), record(std::move(r)), number(n), gate(g) {}
  void run() override {
    const int now = record->atOnce.fetch_add(1) + 1;
    int most = record->mostAtOnce.load();
    while (most < now && !record->mostAtOnce.compare_exchange_weak(most, now)) {
    }
    record->order[record->begun.fetch_add(1)].store(number);
    if (gate) gate->pass();
    result = number;  // plain memory, which ended() hands over
    record->atOnce.fetch_sub(1);
  }
  void ended() override {
    const std::shared_ptr<Record> kept = record;
    kept->ended.word.fetch_add(1);
    kept->ended.wake(1 << 20);
  }
  const std::shared_ptr<Record> record;
  const int number;
  Gate* const gate;
  int result = -1;
};

void waitFor(Event& event, uint32_t count) {
  for (uint32_t seen = event.word.load(); seen < count; seen = event.word.load()) event.wait(seen);
}

template <typename Condition>
void waitUntil(Condition condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

using Tasks = std::vector<std::unique_ptr<Task>>;

TEST(background_runsEachTaskOnceAndShowsItsResult) {
  Background& background = backgroundOf(2);
  const auto record = std::make_shared<Record>();
  Tasks tasks;
  for (int n = 0; n < 200; ++n) {
    tasks.push_back(std::make_unique<Task>(record, n, n % 3 == 0, nullptr));
    CHECK(background.submit(tasks.back().get()));
  }
  waitFor(record->ended, 200);
  CHECK_EQ(record->begun.load(), 200);
  for (const auto& task : tasks) CHECK_EQ(task->result, task->number);
}

TEST(background_noMoreLongTasksAtOnceThanAllowedInTheOrderTheyCame) {
  Background& background = backgroundOf(2);
  const auto record = std::make_shared<Record>();
  Gate gate;
  Tasks tasks;
  for (int n = 0; n < 6; ++n) {
    tasks.push_back(std::make_unique<Task>(record, n, false, n < 2 ? &gate : nullptr));
    background.submit(tasks.back().get());
  }
  waitUntil([&] { return record->begun.load() == 2; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_EQ(record->begun.load(), 2);
  gate.open();
  waitFor(record->ended, 6);
  CHECK_EQ(record->mostAtOnce.load(), 2);
  bool isThere[6] = {};
  for (int i = 0; i < 6; ++i) isThere[record->order[i].load()] = true;
  for (bool there : isThere) CHECK(there);
  CHECK(record->order[0].load() < 2 && record->order[1].load() < 2);
}

TEST(background_aShortTaskDoesNotWaitForLongOnes) {
  Background& background = backgroundOf(2);
  const auto record = std::make_shared<Record>();
  const auto shorts = std::make_shared<Record>();
  Gate gate;
  Tasks tasks;
  for (int n = 0; n < 5; ++n) tasks.push_back(std::make_unique<Task>(record, n, false, &gate));
  for (const auto& task : tasks) background.submit(task.get());
  waitUntil([&] { return record->begun.load() == 2; });  // one thread is left, which takes them in order
  for (int n = 0; n < 20; ++n) {
    tasks.push_back(std::make_unique<Task>(shorts, n, true, nullptr));
    background.submit(tasks.back().get());
  }
  waitFor(shorts->ended, 20);  // or for ever
  for (int i = 0; i < 20; ++i) CHECK_EQ(shorts->order[i].load(), i);
  CHECK_EQ(record->ended.word.load(), 0u);
  gate.open();
  waitFor(record->ended, 5);
}

TEST(background_aLongTaskDoesNotWaitForShortOnes) {
  Background& background = backgroundOf(1);
  const auto record = std::make_shared<Record>();
  Gate first, second;
  Task blocker(record, 0, true, &first), other(record, 1, true, &first), late(record, 2, true, &second), big(record, 3, false, nullptr);
  background.submit(&blocker);
  background.submit(&other);
  waitUntil([&] { return record->begun.load() == 2; });  // both threads
  background.submit(&late);
  background.submit(&big);
  first.open();
  waitFor(record->ended, 3);  // all but `late`, which was there before `big`
  CHECK_EQ(big.result, 3);
  second.open();
  waitFor(record->ended, 4);
}

TEST(background_takesBackWhatHasNotBegun) {
  Background& background = backgroundOf(1);
  const auto record = std::make_shared<Record>();
  Gate gate;
  Task running(record, 0, false, &gate), waiting(record, 1, false, nullptr), last(record, 2, false, nullptr);
  background.submit(&running);
  waitUntil([&] { return record->begun.load() == 1; });
  background.submit(&waiting);
  background.submit(&last);
  CHECK(!background.withdraw(&running));
  CHECK(background.withdraw(&waiting));
  CHECK(!background.withdraw(&waiting));
  gate.open();
  waitFor(record->ended, 2);
  CHECK_EQ(waiting.result, -1);
  CHECK_EQ(last.result, 2);
  CHECK(!background.withdraw(&last));
}

// Submitted and withdrawn from many threads at once: each task is either run or taken back, never both, never neither.
TEST(background_manyThreadsSubmitAndWithdraw) {
  Background& background = backgroundOf(2);
  std::atomic<int> takenBack{0};
  constexpr int kThreads = 4, kTasks = 60;
  const auto record = std::make_shared<Record>();
  std::vector<Tasks> all(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int n = 0; n < kTasks; ++n) {
        all[t].push_back(std::make_unique<Task>(record, n, (n + t) % 2 == 0, nullptr));
        background.submit(all[t].back().get());
        if (n % 3 == 0 && background.withdraw(all[t].back().get())) takenBack.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  waitFor(record->ended, static_cast<uint32_t>(kThreads * kTasks - takenBack.load()));
  CHECK_EQ(record->begun.load() + takenBack.load(), kThreads * kTasks);
}

}  // namespace
