// The workers that sleep, each on an Event of its own: whoever wakes one knows which, and that it sleeps no more.
#pragma once

#include <stdint.h>

#include <atomic>

#include "event.h"

namespace sdpa {

class ParkedWorkers {
 public:
  static constexpr int kMaxWorkers = 1024;

  // Sleeps until a call of wake() picks this worker, or not at all where `changed()` is true after the worker has
  // been entered: whoever makes it true calls wake() only afterwards, so no wakeup is lost.
  template <typename Changed>
  void park(int worker, Changed changed) {
    enter(worker);
    if (changed() && leave(worker)) return;
    sleep(worker);
  }

  // Wakes up to `count` of them, those of the lowest numbers: the same few stay warm. Returns how many.
  int wake(int count);

  // How many sleep and have not been picked.
  int count() const { return countBelow(kMaxWorkers); }

  // Likewise, of those whose number is below `worker`.
  int countBelow(int worker) const;

 private:
  static constexpr uint32_t kAwake = 0;
  static constexpr uint32_t kAsleep = 1;
  static constexpr int kWords = kMaxWorkers / 64;

  void enter(int worker);
  bool leave(int worker);
  void sleep(int worker);

  std::atomic<uint64_t> entered_[kWords] = {};
  std::atomic<int> usedWords_{0};
  Event states_[kMaxWorkers];
};

}  // namespace sdpa
