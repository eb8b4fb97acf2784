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
//   tasks, seats  are Countdowns: one 64-bit word {generation, left}. take(generation) decrements `left`
//                 only while the word still shows the generation that the worker has seen, so a late worker fails
//                 instead of robbing the record's next job. `left` counts down from the number of tasks, so
//                 task = count - left is claimed in index order, and the word alone tells that nothing is left:
//                 while left == 0 nobody can enter, and the record may be rewritten. 40 bits of generation last
//                 five days of back-to-back jobs before a value returns.
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
// task clears it. Worker w prefers live job number w mod n of n, and looks again whenever liveJobs has changed since
// it chose, so the workers spread evenly over the jobs, and no job, having its own caller, can starve.
//
// Memory order. Publishing: description, unfinished, seats, then tasks (release), the bit in liveJobs, then
// published.word. take() acquires, so who holds a task sees the description of its generation; it also cannot see a
// later one, since the next caller rewrites the record only after unfinished == 0, which comes after that task.
// Results: the subtraction from `unfinished` releases, the caller's load acquires; every later subtraction continues
// the release sequence, so zero shows the writes of all.
//
// No lost wakeup. A worker reads published.word (seen), looks through the live jobs, spins, and parks with
// wait(seen). Publishing increments the word *before* it reads `sleepers`; a worker increments `sleepers` before
// the kernel compares the word with `seen` (all sequentially consistent). So either the publisher sees the sleeper
// and wakes it, or the sleeper sees the new word and doesn't sleep. Parking on `unfinished` is the same with the
// kCallerParked bit in the word itself: set before the wait, returned by the last subtraction.
//
// Measured on 2 virtual cores (Sapphire Rapids class), 2 threads, medians; what the call took beyond a perfect split:
//   worker hot: 0.15 us; after a gap of 10-25 us: 0.7 us. Sixteen empty tasks: 0.3 us in all.
//   worker parked: 14 us, nearly all of it the wake's interrupt to a halted virtual core. The worker arrives 30 to
//   150 us later, so smaller jobs had better be run serially: hasAwakeWorker.
//   both cores kept busy by other processes: two tasks of 5 us took 10.3 us at the median (serial: 10.0), 42 at the
//   90th percentile, where the worker had been put aside in the middle of a task.
#include "thread_pool.h"

#include <algorithm>
#include <new>

#include "available_cores.h"
#include "detached_thread.h"
#include "event.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace sdpa {
namespace {

constexpr int kMaxJobs = 64;                    // one bit each; a 65th concurrent call runs serially
constexpr uint32_t kMaxTasks = (1u << 24) - 1;  // of one published job; longer ones are published piecewise
constexpr uint64_t kMaxGeneration = (uint64_t{1} << 40) - 1;
constexpr uint32_t kCallerParked = 1u << 31;

// True on the workers, and on a caller while it runs tasks: a nested job runs serially.
thread_local bool insideTask = false;

// The word {generation : 40, left : 24} of the essay.
class Countdown {
 public:
  struct State {
    uint64_t generation;
    uint32_t left;
  };

  State state() const { return unpack(word_.load(std::memory_order_acquire)); }

  void start(uint64_t generation, uint32_t left) {
    word_.store(generation << 24 | left, std::memory_order_release);
  }

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
  static State unpack(uint64_t word) { return {word >> 24, static_cast<uint32_t>(word & kMaxTasks)}; }
  std::atomic<uint64_t> word_{0};
};

struct alignas(64) Job {
  Countdown tasks;
  Countdown seats;
  std::atomic<bool> dropped;
  TaskFn fn;
  void* context;
  const std::atomic<bool>* cancelled;
  int64_t firstTask;
  uint32_t count;
  alignas(64) Event unfinished;  // on a line of its own: the caller spins on it
};

// The seat that a worker holds in a job; the generation tells whether it is still that job.
struct Seat {
  uint64_t generation = ~uint64_t{0};  // of no job
  int slot = 0;
};

enum class Outcome { kWorked, kNothingLeft, kNoSeat };

int indexOfLowestBit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, bits);
  return static_cast<int>(index);
#else
  return __builtin_ctzll(bits);
#endif
}

}  // namespace

struct ThreadPool::Core {
  alignas(64) std::atomic<uint64_t> liveJobs{0};
  std::atomic<uint64_t> freeJobs{~uint64_t{0}};
  alignas(64) Event published;  // its word counts published jobs
  std::atomic<int> sleepers{0};
  alignas(64) std::atomic<int> numThreads{1};
  std::atomic<int> numWorkers{0};
  std::atomic<int> workerLimit{kMaxThreads - 1};  // lowered where the system refuses a thread
  std::atomic<bool> starting{false};
  Job jobs[kMaxJobs];

  uint64_t bitOf(const Job& job) const { return uint64_t{1} << (&job - jobs); }
  Job* acquireJob();
  bool run(Job& job, int participants);
  void publish(Job& job, uint64_t generation, int participants);
  void runTasks(Job& job, uint64_t generation, int slot, const uint64_t* chosenFrom);
  void waitUntilFinished(Job& job);
  Outcome takePart(Job& job, Seat& seat, uint64_t live);
  Outcome workOnSomeJob(int worker, Seat* seats);
  void waitForJobs(uint32_t seen, bool maySpin);
  void workerLoop(int worker);
  void startWorkers(int wanted);
  static void workerBody(void* worker);
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
bool ThreadPool::Core::run(Job& job, int participants) {
  const uint64_t generation = (job.tasks.state().generation + 1) & kMaxGeneration;
  publish(job, generation, participants);
  insideTask = true;
  runTasks(job, generation, 0, nullptr);
  insideTask = false;
  waitUntilFinished(job);
  return !job.dropped.load(std::memory_order_relaxed);
}

void ThreadPool::Core::publish(Job& job, uint64_t generation, int participants) {
  const int helpers = participants - 1;
  startWorkers(helpers);
  job.dropped.store(false, std::memory_order_relaxed);
  job.unfinished.word.store(job.count, std::memory_order_relaxed);
  job.seats.start(generation, static_cast<uint32_t>(helpers));
  job.tasks.start(generation, job.count);
  liveJobs.fetch_or(bitOf(job));
  published.word.fetch_add(1);
  const int asleep = sleepers.load();
  if (asleep > 0) published.wake(std::min(helpers, asleep));
}

// Claims and runs tasks until none is left or, for a worker, until liveJobs differs from what it has chosen from.
void ThreadPool::Core::runTasks(Job& job, uint64_t generation, int slot, const uint64_t* chosenFrom) {
  uint32_t finished = 0;
  while (const uint32_t left = job.tasks.take(generation)) {
    ++finished;
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
    if (chosenFrom != nullptr && liveJobs.load(std::memory_order_relaxed) != *chosenFrom) break;
  }
  if (finished == 0) return;
  const uint32_t before = job.unfinished.word.fetch_sub(finished, std::memory_order_acq_rel);
  if (before == (kCallerParked | finished)) job.unfinished.wake(1);
}

void ThreadPool::Core::waitUntilFinished(Job& job) {
  std::atomic<uint32_t>& word = job.unfinished.word;
  if (spinUntil([&] { return word.load(std::memory_order_acquire) == 0; })) return;
  uint32_t seen = word.fetch_or(kCallerParked, std::memory_order_acq_rel) | kCallerParked;
  while (seen != kCallerParked) {
    job.unfinished.wait(seen);
    seen = word.load(std::memory_order_acquire);
  }
}

// The workers' side ------------------------------------------------------------------------------------------------

Outcome ThreadPool::Core::takePart(Job& job, Seat& seat, uint64_t live) {
  const Countdown::State tasks = job.tasks.state();
  if (tasks.left == 0) return Outcome::kNothingLeft;
  if (seat.generation != tasks.generation) {
    const uint32_t slot = job.seats.take(tasks.generation);  // participants - 1 down to 1
    if (slot == 0) return Outcome::kNoSeat;
    seat = {tasks.generation, static_cast<int>(slot)};
  }
  runTasks(job, tasks.generation, seat.slot, &live);
  return Outcome::kWorked;
}

Outcome ThreadPool::Core::workOnSomeJob(int worker, Seat* seats) {
  const uint64_t live = liveJobs.load(std::memory_order_acquire);
  int candidates[kMaxJobs];
  int count = 0;
  for (uint64_t bits = live; bits != 0; bits &= bits - 1) candidates[count++] = indexOfLowestBit(bits);
  Outcome outcome = Outcome::kNothingLeft;
  for (int i = 0; i < count; ++i) {
    const int index = candidates[(worker + i) % count];
    const Outcome attempt = takePart(jobs[index], seats[index], live);
    if (attempt == Outcome::kWorked) return attempt;
    if (attempt == Outcome::kNoSeat) outcome = attempt;
  }
  return outcome;
}

// Returns when a job has been published since `seen`. A worker that found every seat taken parks at once: spinning,
// it would burn its core beside a stream of jobs that are meant to use fewer threads.
void ThreadPool::Core::waitForJobs(uint32_t seen, bool maySpin) {
  if (maySpin && spinUntil([&] { return published.word.load(std::memory_order_acquire) != seen; })) return;
  sleepers.fetch_add(1);
  while (published.word.load() == seen) published.wait(seen);
  sleepers.fetch_sub(1);
}

void ThreadPool::Core::workerLoop(int worker) {
  insideTask = true;
  Seat seats[kMaxJobs];
  for (;;) {
    const uint32_t seen = published.word.load();
    const Outcome outcome = workOnSomeJob(worker, seats);
    if (outcome != Outcome::kWorked) waitForJobs(seen, outcome == Outcome::kNothingLeft);
  }
}

// Starting threads -------------------------------------------------------------------------------------------------

void ThreadPool::Core::workerBody(void* worker) {
  shared().core_.workerLoop(static_cast<int>(reinterpret_cast<intptr_t>(worker)));
}

// Brings the number of workers to `wanted`, as far as the system allows. A caller that finds another one at this goes
// on without: its job is published to the new workers too.
void ThreadPool::Core::startWorkers(int wanted) {
  if (numWorkers.load(std::memory_order_relaxed) >= wanted) return;
  if (starting.exchange(true, std::memory_order_acquire)) return;
  pinLibrary();
  const int limit = std::min(wanted, workerLimit.load(std::memory_order_relaxed));
  for (int worker = numWorkers.load(std::memory_order_relaxed); worker < limit; ++worker) {
    if (!startDetachedThread(workerBody, reinterpret_cast<void*>(static_cast<intptr_t>(worker)))) {
      workerLimit.store(worker, std::memory_order_relaxed);
      break;
    }
    numWorkers.store(worker + 1, std::memory_order_relaxed);
  }
  starting.store(false, std::memory_order_release);
}

// The public face --------------------------------------------------------------------------------------------------

ThreadPool& ThreadPool::shared() {
  // Static memory, constructed once and never destroyed: see the header.
  alignas(Core) static unsigned char coreMemory[sizeof(Core)];
  static Core* core = [] {
    Core* made = new (coreMemory) Core;
    made->numThreads.store(std::min(sdpa::availableCores(), kMaxThreads), std::memory_order_relaxed);
    return made;
  }();
  static ThreadPool pool(*core);
  return pool;
}

int ThreadPool::availableCores() { return sdpa::availableCores(); }

bool ThreadPool::hasAwakeWorker() const {
  return core_.sleepers.load(std::memory_order_relaxed) < core_.numWorkers.load(std::memory_order_relaxed);
}

int ThreadPool::numThreads() const { return core_.numThreads.load(std::memory_order_relaxed); }

void ThreadPool::setNumThreads(int numThreads) {
  core_.numThreads.store(std::max(1, std::min(numThreads, kMaxThreads)), std::memory_order_relaxed);
  core_.workerLimit.store(kMaxThreads - 1, std::memory_order_relaxed);
}

int ThreadPool::participants(int64_t count, int maxThreads) const {
  const int allowed = maxThreads > 0 ? std::min(maxThreads, numThreads()) : numThreads();
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(count, allowed)));
}

bool ThreadPool::parallelFor(int64_t count, TaskFn fn, void* context, ParallelOptions options) {
  const int numParticipants = insideTask ? 1 : participants(count, options.maxThreads);
  Job* job = numParticipants > 1 ? core_.acquireJob() : nullptr;
  bool complete = true;
  if (job == nullptr) {
    const bool nested = insideTask;
    insideTask = true;
    for (int64_t task = 0; task < count && complete; ++task) {
      complete = options.cancelled == nullptr || !options.cancelled->load(std::memory_order_relaxed);
      if (complete) fn(context, task, 0);
    }
    insideTask = nested;
    return complete;
  }
  job->fn = fn;
  job->context = context;
  job->cancelled = options.cancelled;
  for (int64_t first = 0; first < count && complete; first += kMaxTasks) {
    job->firstTask = first;
    job->count = static_cast<uint32_t>(std::min<int64_t>(count - first, kMaxTasks));
    complete = core_.run(*job, numParticipants);
  }
  core_.freeJobs.fetch_or(core_.bitOf(*job), std::memory_order_release);
  return complete;
}

}  // namespace sdpa
