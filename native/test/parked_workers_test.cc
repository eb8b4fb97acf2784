#include "../runtime/parked_workers.h"

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "test.h"

namespace {

using sdpa::ParkedWorkers;

void waitUntilParked(const ParkedWorkers& parked, int count) {
  while (parked.count() < count) std::this_thread::yield();
}

TEST(parkedWorkers_wakesThoseOfTheLowestNumbers) {
  const auto parked = std::make_unique<ParkedWorkers>();
  std::atomic<bool> woken[3] = {};
  const int numbers[3] = {700, 2, 65};
  std::vector<std::thread> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([&, i] {
      parked->park(numbers[i], [] { return false; });
      woken[i].store(true);
    });
  }
  waitUntilParked(*parked, 3);
  CHECK_EQ(parked->countBelow(2), 0);
  CHECK_EQ(parked->countBelow(65), 1);
  CHECK_EQ(parked->countBelow(66), 2);
  CHECK_EQ(parked->countBelow(700), 2);
  CHECK_EQ(parked->countBelow(1024), 3);
  CHECK_EQ(parked->wake(2), 2);
  workers[1].join();
  workers[2].join();
  CHECK_EQ(parked->count(), 1);
  CHECK(!woken[0].load());
  CHECK_EQ(parked->wake(5), 1);
  workers[0].join();
  CHECK_EQ(parked->count(), 0);
  CHECK_EQ(parked->wake(1), 0);
}

TEST(parkedWorkers_whoSeesAChangeDoesNotSleep) {
  const auto parked = std::make_unique<ParkedWorkers>();
  parked->park(5, [] { return true; });
  CHECK_EQ(parked->count(), 0);
}

// Two threads in turn, each of which parks until the other has moved on: one lost wakeup, and this never ends.
TEST(parkedWorkers_losesNoWakeup) {
  const auto parked = std::make_unique<ParkedWorkers>();
  constexpr int kTurns = 20000;
  std::atomic<int> turn{0};
  const auto player = [&](int self) {
    while (turn.load() < kTurns) {
      if (turn.load() % 2 == self) {
        turn.fetch_add(1);
        parked->wake(2);
      } else {
        parked->park(self, [&] { return turn.load() % 2 == self || turn.load() >= kTurns; });
      }
    }
    parked->wake(2);
  };
  std::thread other(player, 1);
  player(0);
  other.join();
  CHECK(turn.load() >= kTurns);
}

}  // namespace
