// Calls that run off the thread that asked for them, on threads of our own: libuv has four, which files, names and crypto of
// the whole process wait for.
//
// Who runs when. A thread that is free takes the oldest short task, or else the oldest long one. At least one thread never
// takes a long one, and at least one takes long ones first while none is running: neither kind waits for the other. So many
// long tasks run at once as there are cores, and share them tile by tile (thread_pool.h); the next wait in order, and take
// no memory until they run.
#pragma once

#include <stdint.h>

#include <mutex>

#include "event.h"

namespace sdpa {

class BackgroundTask {
 public:
  explicit BackgroundTask(bool isShort) : isShort_(isShort) {}
  virtual ~BackgroundTask() = default;

  // Does the work, on a thread of Background.
  virtual void run() = 0;
  // Follows run(), there too; the task may be deleted by whom it tells.
  virtual void ended() = 0;

 private:
  friend class Background;
  BackgroundTask* next_ = nullptr;
  const bool isShort_;
};

class Background {
 public:
  // For tests; the process has one, which is never destroyed: its threads may still run while the process exits.
  explicit Background(int maxLong) : maxLong_(maxLong) {}
  static Background& shared();

  // False, with nothing done, where the system refuses a thread and there is none yet: the caller may run the task itself.
  bool submit(BackgroundTask* task);

  // Takes a task back that has not begun; false if it runs or has run.
  bool withdraw(BackgroundTask* task);

 private:
  struct Queue {
    BackgroundTask* first = nullptr;
    BackgroundTask* last = nullptr;
    void push(BackgroundTask* task);
    BackgroundTask* pop();
    bool remove(BackgroundTask* task);
  };

  Queue& queueOf(const BackgroundTask& task) { return task.isShort_ ? short_ : long_; }
  bool ensureThread();
  BackgroundTask* next();
  void hasRun(bool isShort);
  void loop();

  const int maxLong_;
  std::mutex mutex_;  // of all that follows but the event
  Queue short_, long_;
  int threads_ = 0, runningLong_ = 0;
  int64_t unfinished_ = 0;  // tasks queued or running
  Event submitted_;         // counts
};

}  // namespace sdpa
