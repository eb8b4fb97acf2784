// How many are left to take, for takers that may come too late: one 64-bit word {generation : 40, left : 24}.
//
// take(generation) decrements `left` only while the word still shows the generation that the taker has seen, so a late
// one fails instead of robbing the next use of the word; and the word alone tells that nothing is left: while left == 0
// nobody can enter. 40 bits of generation last five days of back-to-back jobs before a value returns.
#pragma once

#include <stdint.h>

#include <atomic>

namespace sdpa {

class Countdown {
 public:
  static constexpr uint32_t kMax = (1u << 24) - 1;  // most that can be left
  static constexpr uint64_t kMaxGeneration = (uint64_t{1} << 40) - 1;

  struct State {
    uint64_t generation;
    uint32_t left;
  };

  State state() const { return unpack(word_.load(std::memory_order_acquire)); }

  // What is left of this generation: nothing if the word is of another one.
  uint32_t left(uint64_t generation) const {
    const State now = state();
    return now.generation == generation ? now.left : 0;
  }

  void start(uint64_t generation, uint32_t left) { word_.store(generation << 24 | left, std::memory_order_release); }

  // `left` before this call took one (`all`: everything), or 0 if nothing was left or the generation is another.
  uint32_t take(uint64_t generation, bool all = false) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const State seen = unpack(word);
      if (seen.left == 0 || seen.generation != generation) return 0;
      const uint64_t rest = all ? word - seen.left : word - 1;
      if (word_.compare_exchange_weak(word, rest, std::memory_order_acquire, std::memory_order_relaxed)) {
        return seen.left;
      }
    }
  }

 private:
  static State unpack(uint64_t word) { return {word >> 24, static_cast<uint32_t>(word & kMax)}; }
  std::atomic<uint64_t> word_{0};
};

}  // namespace sdpa
