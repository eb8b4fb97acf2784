// How the pool works
// ==================
//
// A *job* is one call of parallelFor. Its caller publishes it, claims tasks of it like everybody else, and when none
// is left waits for those tasks only that a worker has claimed. A worker that the operating system has put aside
// before it claimed anything therefore delays nobody: on a busy machine the caller does the work alone. (A static
// split waits for the slowest thread: 22-75 us where this takes 1.)
//
// Jobs live in kMaxJobs records that are never freed, not on the callers' stacks, because a worker may look at a job
// long after its caller has left. Such a late look must be harmless:
//
//   tasks, seats  are Countdowns (countdown.h): a late worker takes nothing of the record's next job. `left` counts
//                 down from the number of tasks, so task = count - left is claimed in index order, and while left == 0
//                 nobody can enter, and the record may be rewritten.
//   description   (fn, context, count, ...) is plain memory, read only by who holds a claimed task. Until that
//                 task is finished the caller cannot leave. `cancelled` points into the caller's world, so it
//                 too is read only with a claim in hand.
//   unfinished    counts tasks not yet run (or dropped); every participant subtracts what it ran when it finds no
//                 more, the caller too. Whoever brings it to zero while the caller is parked wakes the caller. After
//                 this subtraction a worker touches nothing of the job but the Event, where a late wake is spurious.
//
// A *seat* is the right of a worker to take part, and its number is the task's slot. There are participants - 1 of
// them, taken once per worker and job and never returned, so that a job never runs on more than maxThreads threads.
//
// Several jobs may be live. Bit j of liveJobs says that record j may hold unclaimed tasks; who takes the last
// task clears it. Of n live jobs, the worker that comes w-th among those awake prefers number w mod n, and looks again
// whenever liveJobs has changed since it chose: the workers spread evenly over the jobs, and no job, having its own
// caller, can starve.
//
// Who is woken. A worker that finds nothing to do spins for a moment and then parks (ParkedWorkers). Waking one costs
// the waker a system call, so:
//   - Nobody is woken beyond one running thread for each core: callers with a live job and workers that are awake both
//     count. More of them would only take turns. A caller that finds no more tasks leaves a core, and hands it on to
//     another live job.
//   - Nobody is woken where that costs more than it gains (wake_policy.h): for a short job, unless it is one of a
//     streak, and for a job of middle length while woken workers find no core but the caller's. A worker that still
//     spins takes part even so; where none does, the caller works alone.
//   - The publisher wakes two, each of whom wakes two more if the job still wants them.
//
// Spinning must not harm those who work. A worker that has run on the caller's own core offers it at every turn (the
// caller would wait for the end of the spin to get it back), and a caller whose core a worker has used parks at once; so
// does who sees that its core was taken away while it spun; and a worker's spins shorten while they are in vain.
//
// Memory order. Publishing: description, unfinished, seats, then tasks (release), the bit in liveJobs, then
// `published`. take() acquires, so who holds a task sees the description of its generation; it also cannot see a
// later one, since the next caller rewrites the record only after unfinished == 0, which comes after that task.
// Results: the subtraction from `unfinished` releases, the caller's load acquires; every later subtraction continues
// the release sequence, so zero shows the writes of all.
//
// No lost wakeup. A worker reads `published` (seen), looks through the live jobs, spins until it changes, enters itself
// among the parked and looks at it once more. Publishing changes it *before* it looks for parked workers (all
// sequentially consistent). So either the publisher sees the worker, or the worker sees the new job. Parking on
// `unfinished` is the same with the kCallerParked bit in the word itself: set before the wait, returned by the last
// subtraction.
//
// Measured on 2 virtual cores, 2 threads, jobs of 16 tasks (what the call took beyond a perfect split, medians):
//   worker spinning: 0.3 us; parked: 15 to 20 us, nearly all of it the wake's interrupt to a halted virtual core. The
//   worker arrives 20 to 50 us later. Sixteen empty tasks: 0.3 us in all.
//   Beside a process on every core: bench/NOTES.md, "Under contention".
#include "thread_pool.h"

#include <algorithm>
#include <new>

#include "available_cores.h"
#include "bits.h"
#include "countdown.h"
#include "detached_thread.h"
#include "job.h"
#include "parked_workers.h"
#include "wake_policy.h"

namespace sdpa {
namespace {

constexpr int kFanOut = 2;  // workers that one thread wakes; they wake the rest
constexpr std::chrono::nanoseconds kShortestSpin = std::chrono::microseconds(2);

// True on the workers, and on a caller while it runs tasks: a nested job runs serially.
thread_local bool insideTask = false;

thread_local WakePolicy wakePolicy;

enum class Outcome { kWorked, kNothingLeft, kNoSeat };

// Who has taken part, seen from the core of the caller, which calls this.
Help helpIn(const Job& job) {
  const uint64_t cores = job.helperCores.load(std::memory_order_relaxed);
  const int core = currentCore();
  if (core >= 0 && (cores >> (core & 63) & 1) != 0) return Help::kFromCallersCore;
  return cores == 0 ? Help::kNone : Help::kFromOtherCores;
}

// All tasks on this thread; false if `cancelled` became true meanwhile.
bool runSerially(int64_t count, TaskFn fn, void* context, const std::atomic<bool>* cancelled) {
  const bool nested = insideTask;
  insideTask = true;
  bool complete = true;
  for (int64_t task = 0; task < count && complete; ++task) {
    complete = cancelled == nullptr || !cancelled->load(std::memory_order_relaxed);
    if (complete) fn(context, task, 0);
  }
  insideTask = nested;
  return complete;
}

}  // namespace

struct ThreadPool::Core {
  alignas(64) std::atomic<uint64_t> liveJobs{0};
  std::atomic<uint64_t> freeJobs{~uint64_t{0}};
  alignas(64) std::atomic<uint32_t> published{0};  // counts published jobs
  std::atomic<int> spinning{0};                    // workers that look for one
  std::atomic<uint32_t> streaks{0};                // counts wakeups for short jobs that come without a pause
  alignas(64) std::atomic<int> numThreads{1};
  std::atomic<int> cores{1};  // no more threads than this are ever made to run
  std::atomic<int> numWorkers{0};
  std::atomic<int> workerLimit{kMaxThreads - 1};  // lowered where the system refuses a thread
  std::atomic<bool> starting{false};
  ParkedWorkers parked;
  Job jobs[kMaxJobs];

  uint64_t bitOf(const Job& job) const { return uint64_t{1} << (&job - jobs); }
  Job* acquireJob();
  bool run(Job& job, int participants, bool mayWake);
  void publish(Job& job, uint64_t generation, int participants, bool mayWake);
  void runTasks(Job& job, uint64_t generation, int slot, Worker* worker);
  void waitUntilFinished(Job& job);
  int wakeFor(const Job& job, uint64_t generation, int claimed);
  void handCoreOn();
  Outcome takePart(Job& job, Worker& worker);
  Outcome workOnSomeJob(Worker& worker);
  void waitForJobs(Worker& worker, uint32_t seen, bool maySpin);
  void workerLoop(int index);
  void startWorkers(int wanted);
  static void workerBody(void* index);
};

// The caller's side ------------------------------------------------------------------------------------------------

Job* ThreadPool::Core::acquireJob() {
  uint64_t free = freeJobs.load(std::memory_order_relaxed);
  while (free != 0) {
    const uint64_t rest = free & (free - 1);
    if (freeJobs.compare_exchange_weak(free, rest, std::memory_order_acquire, std::memory_order_relaxed)) {
      return &jobs[indexOfLowestBit(free)];
    }
  }
  return nullptr;
}

// Runs a job whose description is filled in; false if tasks were dropped.
bool ThreadPool::Core::run(Job& job, int participants, bool mayWake) {
  const uint64_t generation = (job.tasks.state().generation + 1) & Countdown::kMaxGeneration;
  publish(job, generation, participants, mayWake);
  insideTask = true;
  runTasks(job, generation, 0, nullptr);
  insideTask = false;
  handCoreOn();
  waitUntilFinished(job);
  return !job.dropped.load(std::memory_order_relaxed);
}

void ThreadPool::Core::publish(Job& job, uint64_t generation, int participants, bool mayWake) {
  const int helpers = participants - 1;
  if (mayWake) startWorkers(helpers);
  job.dropped.store(false, std::memory_order_relaxed);
  job.callerCore = currentCore();
  job.helperCores.store(0, std::memory_order_relaxed);
  job.unfinished.word.store(job.count, std::memory_order_relaxed);
  job.seats.start(generation, static_cast<uint32_t>(helpers));
  job.tasks.start(generation, job.count);
  liveJobs.fetch_or(bitOf(job));
  published.fetch_add(1);
  if (mayWake) wakeFor(job, generation, 1);
}

// Claims and runs tasks until none is left or, for a worker, until liveJobs differs from what it has chosen from.
void ThreadPool::Core::runTasks(Job& job, uint64_t generation, int slot, Worker* worker) {
  uint32_t finished = 0;
  while (const uint32_t left = job.tasks.take(generation)) {
    if (finished++ == 0 && worker != nullptr) {
      worker->callerCore = job.callerCore;
      job.helperCores.fetch_or(uint64_t{1} << (currentCore() & 63), std::memory_order_relaxed);
    }
    if (left == 1) liveJobs.fetch_and(~bitOf(job));
    if (job.cancelled != nullptr && job.cancelled->load(std::memory_order_relaxed)) {
      job.dropped.store(true, std::memory_order_relaxed);
      if (const uint32_t rest = job.tasks.take(generation, true)) {
        finished += rest;
        liveJobs.fetch_and(~bitOf(job));
      }
      break;
    }
    job.fn(job.context, job.firstTask + (job.count - left), slot);
    if (worker != nullptr && liveJobs.load(std::memory_order_relaxed) != worker->live) break;
  }
  if (finished == 0) return;
  const uint32_t before = job.unfinished.word.fetch_sub(finished, std::memory_order_acq_rel);
  if (before == (kCallerParked | finished)) job.unfinished.wake(1);
}

void ThreadPool::Core::waitUntilFinished(Job& job) {
  std::atomic<uint32_t>& word = job.unfinished.word;
  const auto isFinished = [&] { return word.load(std::memory_order_acquire) == 0; };
  if (isFinished()) return;
  if (helpIn(job) != Help::kFromCallersCore && spinUntil(isFinished)) return;
  uint32_t seen = word.fetch_or(kCallerParked, std::memory_order_acq_rel) | kCallerParked;
  while (seen != kCallerParked) {
    job.unfinished.wait(seen);
    seen = word.load(std::memory_order_acquire);
  }
}

// Waking -----------------------------------------------------------------------------------------------------------

// Wakes a few workers, if this job has seats for them, tasks beside the `claimed` ones that the waker is going to take,
// and the machine has cores. Returns how many.
int ThreadPool::Core::wakeFor(const Job& job, uint64_t generation, int claimed) {
  const int seats = static_cast<int>(job.seats.left(generation)) - spinning.load();
  const int tasks = static_cast<int>(job.tasks.left(generation)) - claimed;
  if (seats <= 0 || tasks <= 0) return 0;
  const int running = countOfBits(liveJobs.load()) + numWorkers.load() - parked.count();
  const int wanted = std::min(std::min(seats, tasks), std::min(cores.load() - running, kFanOut));
  return wanted > 0 ? parked.wake(wanted) : 0;
}

// The caller is about to wait or to leave: its core may serve another job.
void ThreadPool::Core::handCoreOn() {
  for (uint64_t live = liveJobs.load(); live != 0; live &= live - 1) {
    const Job& job = jobs[indexOfLowestBit(live)];
    if (wakeFor(job, job.tasks.state().generation, 0) > 0) return;
  }
}

// The workers' side ------------------------------------------------------------------------------------------------

Outcome ThreadPool::Core::takePart(Job& job, Worker& worker) {
  const Countdown::State tasks = job.tasks.state();
  if (tasks.left == 0) return Outcome::kNothingLeft;
  Seat& seat = worker.seats[&job - jobs];
  if (seat.generation != tasks.generation) {
    const uint32_t slot = job.seats.take(tasks.generation);  // participants - 1 down to 1
    if (slot == 0) return Outcome::kNoSeat;
    seat = {tasks.generation, static_cast<int>(slot)};
  }
  if (worker.woken) wakeFor(job, tasks.generation, 1);
  worker.woken = false;
  runTasks(job, tasks.generation, seat.slot, &worker);
  return Outcome::kWorked;
}

Outcome ThreadPool::Core::workOnSomeJob(Worker& worker) {
  worker.live = liveJobs.load(std::memory_order_acquire);
  int candidates[kMaxJobs];
  int count = 0;
  for (uint64_t bits = worker.live; bits != 0; bits &= bits - 1) candidates[count++] = indexOfLowestBit(bits);
  const int rank = worker.index - parked.countBelow(worker.index);
  Outcome outcome = Outcome::kNothingLeft;
  for (int i = 0; i < count; ++i) {
    const Outcome attempt = takePart(jobs[candidates[(rank + i) % count]], worker);
    if (attempt == Outcome::kWorked) return attempt;
    if (attempt == Outcome::kNoSeat) outcome = attempt;
  }
  return outcome;
}

// Returns when a job has been published since `seen`. A worker that found every seat taken parks at once: spinning,
// it would burn its core beside a stream of jobs that are meant to use fewer threads.
void ThreadPool::Core::waitForJobs(Worker& worker, uint32_t seen, bool maySpin) {
  const auto isPublished = [&] { return published.load() != seen; };
  const bool isInTheWay = worker.callerCore >= 0 && worker.callerCore == currentCore();
  if (maySpin) {
    spinning.fetch_add(1);
    const bool found = isInTheWay ? yieldUntil(isPublished, worker.spinTime) : spinUntil(isPublished, worker.spinTime);
    spinning.fetch_sub(1);
    worker.spinTime = found ? kSpinTime : std::max(worker.spinTime / 2, kShortestSpin);
    if (found) return;
  }
  const auto begin = std::chrono::steady_clock::now();
  parked.park(worker.index, isPublished);
  const uint32_t streaksNow = streaks.load(std::memory_order_relaxed);
  // A whole spin would have met the job, or will meet the next one.
  if (std::chrono::steady_clock::now() - begin < kSpinTime || streaksNow != worker.streaks) worker.spinTime = kSpinTime;
  worker.streaks = streaksNow;
  worker.woken = true;
  worker.callerCore = -1;
}

void ThreadPool::Core::workerLoop(int index) {
  insideTask = true;
  Worker worker;
  worker.index = index;
  for (;;) {
    const uint32_t seen = published.load();
    const Outcome outcome = workOnSomeJob(worker);
    if (outcome != Outcome::kWorked) waitForJobs(worker, seen, outcome == Outcome::kNothingLeft);
  }
}

// Starting threads -------------------------------------------------------------------------------------------------

void ThreadPool::Core::workerBody(void* index) {
  shared().core_.workerLoop(static_cast<int>(reinterpret_cast<intptr_t>(index)));
}

// Brings the number of workers to `wanted`, as far as the system allows. A caller that finds another one at this goes
// on without: its job is published to the new workers too.
void ThreadPool::Core::startWorkers(int wanted) {
  if (numWorkers.load(std::memory_order_relaxed) >= wanted) return;
  if (starting.exchange(true, std::memory_order_acquire)) return;
  pinLibrary();
  const int limit = std::min(wanted, workerLimit.load(std::memory_order_relaxed));
  for (int index = numWorkers.load(std::memory_order_relaxed); index < limit; ++index) {
    if (!startDetachedThread(workerBody, reinterpret_cast<void*>(static_cast<intptr_t>(index)))) {
      workerLimit.store(index, std::memory_order_relaxed);
      break;
    }
    numWorkers.store(index + 1, std::memory_order_relaxed);
  }
  starting.store(false, std::memory_order_release);
}

// The public face --------------------------------------------------------------------------------------------------

ThreadPool& ThreadPool::shared() {
  // Static memory, constructed once and never destroyed: see the header.
  alignas(Core) static unsigned char coreMemory[sizeof(Core)];
  static Core* core = [] {
    Core* made = new (coreMemory) Core;
    made->cores.store(std::min(sdpa::availableCores(), kMaxThreads), std::memory_order_relaxed);
    made->numThreads.store(made->cores.load(std::memory_order_relaxed), std::memory_order_relaxed);
    return made;
  }();
  static ThreadPool pool(*core);
  return pool;
}

int ThreadPool::availableCores() { return sdpa::availableCores(); }

bool ThreadPool::hasSpinningWorker() const { return core_.spinning.load(std::memory_order_relaxed) > 0; }

int ThreadPool::numThreads() const { return core_.numThreads.load(std::memory_order_relaxed); }

void ThreadPool::setNumThreads(int numThreads) {
  core_.numThreads.store(std::max(1, std::min(numThreads, kMaxThreads)), std::memory_order_relaxed);
  core_.workerLimit.store(kMaxThreads - 1, std::memory_order_relaxed);
  // Who asks for more than a CPU quota lasts for gets it in bursts: a short call is done sooner, before the quota is used up.
  assumeCores(std::min(std::max(numThreads, sdpa::availableCores()), sdpa::affinityCores()));
}

void ThreadPool::assumeCores(int cores) {
  core_.cores.store(std::max(1, std::min(cores, kMaxThreads)), std::memory_order_relaxed);
}

int ThreadPool::participants(int64_t count, int maxThreads) const {
  const int most = std::min(numThreads(), core_.cores.load(std::memory_order_relaxed));
  const int allowed = maxThreads > 0 ? std::min(maxThreads, most) : most;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(count, allowed)));
}

bool ThreadPool::parallelFor(int64_t count, TaskFn fn, void* context, ParallelOptions options) {
  const int numParticipants = insideTask ? 1 : participants(count, options.maxThreads);
  if (numParticipants == 1) return runSerially(count, fn, context, options.cancelled);
  const bool mayWake = wakePolicy.isWorthWaking(options.microseconds);
  if (mayWake && options.microseconds < kWakeMicroseconds) core_.streaks.fetch_add(1, std::memory_order_relaxed);
  Job* job = mayWake || hasSpinningWorker() ? core_.acquireJob() : nullptr;
  bool complete = true;
  Help help = Help::kNone;
  if (job == nullptr) {
    complete = runSerially(count, fn, context, options.cancelled);
  } else {
    job->fn = fn;
    job->context = context;
    job->cancelled = options.cancelled;
    for (int64_t first = 0; first < count && complete; first += Countdown::kMax) {
      job->firstTask = first;
      job->count = static_cast<uint32_t>(std::min<int64_t>(count - first, Countdown::kMax));
      complete = core_.run(*job, numParticipants, mayWake);
    }
    help = helpIn(*job);
    core_.freeJobs.fetch_or(core_.bitOf(*job), std::memory_order_release);
  }
  wakePolicy.jobEnded(help);
  return complete;
}

}  // namespace sdpa
