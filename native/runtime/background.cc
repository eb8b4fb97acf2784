#include "runtime/background.h"

#include <algorithm>
#include <new>

#include "runtime/detached_thread.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

constexpr int kMaxLong = 32;  // each keeps a thread and its working memory

}  // namespace

void Background::Queue::push(BackgroundTask* task) {
  task->next_ = nullptr;
  (last ? last->next_ : first) = task;
  last = task;
}

BackgroundTask* Background::Queue::pop() {
  BackgroundTask* task = first;
  if (task) remove(task);
  return task;
}

bool Background::Queue::remove(BackgroundTask* task) {
  BackgroundTask* before = nullptr;
  for (BackgroundTask* at = first; at; before = at, at = at->next_) {
    if (at != task) continue;
    (before ? before->next_ : first) = task->next_;
    if (last == task) last = before;
    return true;
  }
  return false;
}

Background& Background::shared() {
  alignas(Background) static unsigned char memory[sizeof(Background)];
  static Background* background = new (memory) Background(std::min(ThreadPool::availableCores(), kMaxLong));
  return *background;
}

bool Background::submit(BackgroundTask* task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!ensureThread()) return false;
    queueOf(*task).push(task);
    ++unfinished_;
  }
  submitted_.word.fetch_add(1);
  submitted_.wake(1);
  return true;
}

bool Background::withdraw(BackgroundTask* task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!queueOf(*task).remove(task)) return false;
  --unfinished_;
  return true;
}

// One more thread, if all are taken and there may be more; false if there is none at all.
bool Background::ensureThread() {
  if (unfinished_ < threads_ || threads_ > maxLong_) return true;
  pinLibrary();
  const auto body = [](void* background) { static_cast<Background*>(background)->loop(); };
  if (startDetachedThread(body, this)) ++threads_;
  return threads_ > 0;
}

BackgroundTask* Background::next() {
  const std::lock_guard<std::mutex> lock(mutex_);
  BackgroundTask* task = runningLong_ == 0 ? long_.pop() : nullptr;
  if (!task) task = short_.pop();
  if (!task && runningLong_ < maxLong_) task = long_.pop();
  if (task && !task->isShort_) ++runningLong_;
  return task;
}

void Background::hasRun(bool isShort) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --unfinished_;
  if (!isShort) --runningLong_;
}

void Background::loop() {
  for (;;) {
    const uint32_t seen = submitted_.word.load();
    BackgroundTask* task = next();
    if (!task) {
      submitted_.wait(seen);
      continue;
    }
    const bool isShort = task->isShort_;
    task->run();
    hasRun(isShort);
    task->ended();
  }
}

}  // namespace sdpa
