#include "../runtime/wake_policy.h"

#include "test.h"

namespace {

using sdpa::Help;
using sdpa::kCrowdedMicroseconds;
using sdpa::kWakeMicroseconds;
using sdpa::WakePolicy;

TEST(wakePolicy_longJobsAreWorthIt) {
  WakePolicy policy;
  for (int job = 0; job < 5; ++job) {
    CHECK(policy.isWorthWaking(kWakeMicroseconds));
    policy.jobEnded(Help::kNone);
  }
}

TEST(wakePolicy_aShortJobIsNot) {
  WakePolicy policy;
  CHECK(!policy.isWorthWaking(kWakeMicroseconds / 2));
}

TEST(wakePolicy_aStreakOfShortJobsIsNowAndThen) {
  bool seen = false;
  // Whoever is put aside between two jobs has paused.
  for (int attempt = 0; attempt < 1000 && !seen; ++attempt) {
    WakePolicy policy;
    policy.jobEnded(Help::kNone);
    int woken = 0;
    for (int job = 0; job < 40; ++job) {
      woken += policy.isWorthWaking(kWakeMicroseconds / 4);
      policy.jobEnded(Help::kNone);
    }
    CHECK(woken <= 10);
    seen = woken == 10;
  }
  CHECK(seen);
}

// Jobs that go without after `crowded` jobs in a row whose helper had to use the caller's core.
int skipsAfter(int crowded) {
  WakePolicy policy;
  for (int job = 0; job < crowded; ++job) policy.jobEnded(Help::kFromCallersCore);
  int skips = 0;
  while (!policy.isWorthWaking(kWakeMicroseconds)) ++skips;
  return skips;
}

TEST(wakePolicy_goesWithoutWhileTheMachineIsCrowded) {
  CHECK_EQ(skipsAfter(0), 0);
  CHECK_EQ(skipsAfter(1), 1);
  CHECK_EQ(skipsAfter(2), 3);
  CHECK_EQ(skipsAfter(3), 7);
  CHECK_EQ(skipsAfter(50), sdpa::kMostSkips);
}

TEST(wakePolicy_aHelperOnACoreOfItsOwnEndsThat) {
  WakePolicy policy;
  for (int job = 0; job < 5; ++job) policy.jobEnded(Help::kFromCallersCore);
  CHECK(!policy.isWorthWaking(kWakeMicroseconds));
  policy.jobEnded(Help::kNone);  // says nothing
  CHECK(!policy.isWorthWaking(kWakeMicroseconds));
  CHECK(policy.isWorthWaking(kCrowdedMicroseconds));
  policy.jobEnded(Help::kFromOtherCores);
  CHECK(policy.isWorthWaking(kWakeMicroseconds));
  policy.jobEnded(Help::kFromCallersCore);
  CHECK(!policy.isWorthWaking(kWakeMicroseconds));
  CHECK(policy.isWorthWaking(kWakeMicroseconds));
}

}  // namespace
