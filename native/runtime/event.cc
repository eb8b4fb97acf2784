#include "event.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sdpa {

#if defined(__linux__)

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain 32-bit word");

void Event::wait(uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void Event::wake(int count) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0); }

#elif defined(_WIN32)

// A slim lock and its condition variable, not WaitOnAddress, which would ask for one more import library.
void Event::wait(uint32_t expected) {
  AcquireSRWLockExclusive(&mutex_);
  if (word.load() == expected) SleepConditionVariableSRW(&changed_, &mutex_, INFINITE, 0);
  ReleaseSRWLockExclusive(&mutex_);
}

void Event::wake(int count) {
  // Passing through the lock lets a waiter that has seen the old word reach its sleep first.
  AcquireSRWLockExclusive(&mutex_);
  ReleaseSRWLockExclusive(&mutex_);
  if (count == 1) {
    WakeConditionVariable(&changed_);
  } else {
    WakeAllConditionVariable(&changed_);
  }
}

#else

void Event::wait(uint32_t expected) {
  pthread_mutex_lock(&mutex_);
  if (word.load() == expected) pthread_cond_wait(&changed_, &mutex_);
  pthread_mutex_unlock(&mutex_);
}

void Event::wake(int count) {
  // Passing through the lock lets a waiter that has seen the old word reach its sleep first.
  pthread_mutex_lock(&mutex_);
  pthread_mutex_unlock(&mutex_);
  if (count == 1) {
    pthread_cond_signal(&changed_);
  } else {
    pthread_cond_broadcast(&changed_);
  }
}

#endif

}  // namespace sdpa
