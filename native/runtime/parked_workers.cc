#include "parked_workers.h"

#include "bits.h"

namespace sdpa {

// All sequentially consistent: a worker enters and then looks whether there is work; who brings work looks afterwards
// whether anybody has entered. One of them sees the other.
void ParkedWorkers::enter(int worker) {
  const int word = worker / 64;
  int used = usedWords_.load();
  while (used <= word && !usedWords_.compare_exchange_weak(used, word + 1)) {
  }
  states_[worker].word.store(kAsleep, std::memory_order_relaxed);
  entered_[word].fetch_or(uint64_t{1} << (worker % 64));
}

// False if a waker has picked the worker already: then it will be woken.
bool ParkedWorkers::leave(int worker) {
  const uint64_t bit = uint64_t{1} << (worker % 64);
  return (entered_[worker / 64].fetch_and(~bit) & bit) != 0;
}

void ParkedWorkers::sleep(int worker) {
  Event& state = states_[worker];
  while (state.word.load(std::memory_order_acquire) == kAsleep) state.wait(kAsleep);
}

int ParkedWorkers::wake(int count) {
  int woken = 0;
  const int used = usedWords_.load();
  for (int word = 0; word < used && woken < count; ++word) {
    uint64_t bits = entered_[word].load();
    while (bits != 0 && woken < count) {
      if (!entered_[word].compare_exchange_weak(bits, bits & (bits - 1))) continue;
      Event& state = states_[64 * word + indexOfLowestBit(bits)];
      state.word.store(kAwake, std::memory_order_release);
      state.wake(1);
      ++woken;
      bits = entered_[word].load();
    }
  }
  return woken;
}

int ParkedWorkers::countBelow(int worker) const {
  int total = 0;
  const int used = usedWords_.load();
  for (int word = 0; word < used && 64 * word < worker; ++word) {
    const uint64_t bits = entered_[word].load();
    const int wanted = worker - 64 * word;
    total += countOfBits(wanted < 64 ? bits & ((uint64_t{1} << wanted) - 1) : bits);
  }
  return total;
}

}  // namespace sdpa
