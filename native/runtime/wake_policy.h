// Whether a job is worth waking a thread for, from what its caller has seen lately. Each caller has a policy of its own.
#pragma once

#include <chrono>

#include "event.h"

namespace sdpa {

// A woken worker arrives 10 to 50 us later, and the waker spends up to 15 us on it: jobs of 50 us gain nothing, those of
// 80 us a quarter.
constexpr double kWakeMicroseconds = 60;

// Jobs that take longer find a core sooner or later.
constexpr double kCrowdedMicroseconds = 1000;
constexpr int kMostSkips = 15;

// Who took part in a job beside its caller.
enum class Help { kNone, kFromOtherCores, kFromCallersCore };

class WakePolicy {
 public:
  bool isWorthWaking(double microseconds) {
    if (microseconds >= kCrowdedMicroseconds) return true;
    if (microseconds < kWakeMicroseconds && !isStreakWorthWaking(microseconds)) return false;
    if (skips_ == 0) return true;
    --skips_;
    return false;
  }

  // A worker that came to the caller's own core has found no other: the machine is busy, and being woken it has only
  // put the caller aside, perhaps behind a third one. The next jobs go without, ever more of them while that goes on.
  void jobEnded(Help help) {
    end_ = std::chrono::steady_clock::now();
    if (help == Help::kNone) return;
    lastSkips_ = help == Help::kFromOtherCores ? 0 : lastSkips_ < kMostSkips ? 2 * lastSkips_ + 1 : kMostSkips;
    skips_ = lastSkips_;
  }

 private:
  // Short jobs that come without a pause in which a worker would have parked are together worth what each of them is
  // not; but never more than one wakeup in kWakeMicroseconds of work, so that no streak takes much longer for it.
  bool isStreakWorthWaking(double microseconds) {
    if (std::chrono::steady_clock::now() - end_ > kSpinTime) streak_ = 0;
    streak_ += microseconds;
    if (streak_ < kWakeMicroseconds) return false;
    streak_ = 0;
    return true;
  }

  std::chrono::steady_clock::time_point end_;
  double streak_ = 0;  // microseconds
  int skips_ = 0;      // jobs that still go without
  int lastSkips_ = 0;
};

}  // namespace sdpa
