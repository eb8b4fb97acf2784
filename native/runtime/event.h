// The one blocking primitive of the runtime: a 32-bit word that a thread can sleep on until somebody changes it.
//
// std::condition_variable::wait needs GLIBCXX 3.4.30, which RHEL 9 lacks, and a futex is smaller anyway: waking is free
// when the caller knows that nobody sleeps, which the word's own value can tell.
#pragma once

#include <stdint.h>

#include <atomic>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#elif !defined(__linux__)
#include <pthread.h>
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

}  // namespace sdpa
