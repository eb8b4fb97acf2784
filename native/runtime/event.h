// The one blocking primitive of the runtime: a 32-bit word that a thread can sleep on until somebody changes it;
// and the short spin that comes before the sleep.
//
// std::condition_variable::wait needs GLIBCXX 3.4.30, which RHEL 9 lacks, and a futex is smaller anyway: waking
// is free when the caller knows that nobody sleeps, which the word's own value can tell.
#pragma once

#include <stdint.h>

#include <atomic>
#include <chrono>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <pthread.h>
#include <sched.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#elif defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace sdpa {

class Event {
 public:
  // Change it freely, with any atomic operation; after a change that a sleeper waits for, call wake.
  std::atomic<uint32_t> word{0};

  // Sleeps while word == expected. May return early for no reason: callers loop over their own condition.
  void wait(uint32_t expected);

  // Wakes at most `count` sleepers; those that are about to sleep on the old value won't. Acts on the Event
  // alone, so a late wake (of an Event that has been given a new use) is only a spurious one.
  void wake(int count);

 private:
#if defined(_WIN32)
  SRWLOCK mutex_ = SRWLOCK_INIT;
  CONDITION_VARIABLE changed_ = CONDITION_VARIABLE_INIT;
#elif !defined(__linux__)
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
#endif
};

inline void relaxCpu() {
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
  _mm_pause();
#elif defined(_MSC_VER)
  __yield();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");  // `yield` does nothing on most cores
#endif
}

// Lets another thread that waits for this core have it, if there is one.
inline void yieldCore() {
#if defined(_WIN32)
  SwitchToThread();
#else
  sched_yield();
#endif
}

// Longer than the gap between two jobs of one call, shorter than anybody minds; a sleep and a wakeup cost both sides
// 10-50 us.
constexpr auto kSpinTime = std::chrono::microseconds(50);

// Between two looks at the clock, half a microsecond apart, so much time passes only where the core was taken away.
constexpr auto kTakenAwayTime = std::chrono::microseconds(20);

// Spins until done(), for `time`, or until the core is taken away: somebody else wants it. True if done.
template <typename Done>
bool spinUntil(Done done, std::chrono::nanoseconds time = kSpinTime) {
  auto now = std::chrono::steady_clock::now();
  const auto deadline = now + time;
  while (now < deadline) {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      relaxCpu();
    }
    const auto before = now;
    now = std::chrono::steady_clock::now();
    if (now - before > kTakenAwayTime) return done();
  }
  return false;
}

// At most so long in all does a thread offer its core that finds no taker, or gets it back.
constexpr auto kYieldTime = std::chrono::milliseconds(4);

// As spinUntil, but offers the core at every turn: for a thread in whose way others stand, or the other way round. It
// stays runnable, so that the system may find it another core. `time` counts while nobody takes the offer.
template <typename Done>
bool yieldUntil(Done done, std::chrono::nanoseconds time) {
  auto now = std::chrono::steady_clock::now();
  const auto deadline = now + kYieldTime;
  std::chrono::nanoseconds own{0};
  while (now < deadline && own < time) {
    if (done()) return true;
    yieldCore();
    const auto before = now;
    now = std::chrono::steady_clock::now();
    if (now - before < kTakenAwayTime) own += now - before;
  }
  return done();
}

}  // namespace sdpa
