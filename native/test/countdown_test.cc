#include "../runtime/countdown.h"

#include <atomic>
#include <thread>
#include <vector>

#include "test.h"

namespace {

using sdpa::Countdown;

TEST(countdown_givesEachOfThemOnce) {
  Countdown countdown;
  countdown.start(7, 3);
  CHECK_EQ(countdown.left(7), 3u);
  CHECK_EQ(countdown.take(7), 3u);
  CHECK_EQ(countdown.take(7), 2u);
  CHECK_EQ(countdown.take(7), 1u);
  CHECK_EQ(countdown.take(7), 0u);
  CHECK_EQ(countdown.left(7), 0u);
}

TEST(countdown_givesNothingOfAnotherGeneration) {
  Countdown countdown;
  countdown.start(Countdown::kMaxGeneration, Countdown::kMax);
  CHECK_EQ(countdown.take(Countdown::kMaxGeneration - 1), 0u);
  CHECK_EQ(countdown.left(Countdown::kMaxGeneration - 1), 0u);
  CHECK_EQ(countdown.take(Countdown::kMaxGeneration), Countdown::kMax);
  CHECK(countdown.state().generation == Countdown::kMaxGeneration);
  CHECK_EQ(countdown.take(Countdown::kMaxGeneration, true), Countdown::kMax - 1);
  CHECK_EQ(countdown.state().left, 0u);
}

TEST(countdown_givesEachOfThemOnceToManyThreads) {
  constexpr uint32_t kCount = 20000;
  Countdown countdown;
  std::vector<std::atomic<int>> taken(kCount + 1);
  countdown.start(1, kCount);
  std::vector<std::thread> takers;
  for (int taker = 0; taker < 4; ++taker) {
    takers.emplace_back([&] {
      while (const uint32_t left = countdown.take(1)) taken[left].fetch_add(1);
    });
  }
  for (std::thread& taker : takers) taker.join();
  for (uint32_t left = 1; left <= kCount; ++left) CHECK_EQ(taken[left].load(), 1);
}

}  // namespace
