// What the pool makes of jobs of many lengths, alone or beside other processes: jobs [neighbours] [threads]
// For each length of a job (on one thread; 16 equal tasks) and each pause between two jobs (computing or asleep): times on
// one thread and through the pool, in us; CPU time of the process for each job; and the ratio of the two. They take turns.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "runtime/thread_pool.h"

namespace {

using namespace sdpa;

constexpr int kTasks = 16;
constexpr int kRounds = 12;
constexpr double kBlock = 1e5;
constexpr double kLengths[] = {20, 50, 100, 200, 500, 2000};
constexpr double kPauses[] = {0, 30, 200, -500};  // below 0: asleep

double now() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpuNow() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return 1e6 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_nsec);
}

// So many steps that each wait for the one before: the same work however often the core is taken away meanwhile.
void work(int64_t steps) {
  static volatile double sink;
  double x = 1;
  for (int64_t i = 0; i < steps; ++i) x = x * 1.0000001 + 1e-9;
  sink = x;
}

double stepsPerMicrosecond() {
  double best = 1e9;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const double begin = now();
    work(1000000);
    best = std::min(best, now() - begin);
  }
  return 1e6 / best;
}

pid_t startNeighbour() {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  while (getppid() == parent) work(1000000);
  _exit(0);
}

struct Sample {
  std::vector<double> times;
  double cpu = 0;

  double at(double share) {
    std::sort(times.begin(), times.end());
    return times[std::min(times.size() - 1, static_cast<size_t>(share * static_cast<double>(times.size())))];
  }
  double mean() const {
    double sum = 0;
    for (double time : times) sum += time;
    return sum / static_cast<double>(times.size());
  }
};

// Jobs one after the other for a while.
void runBlock(double length, double pause, int threads, double stepsOfOne, Sample& sample) {
  int64_t steps = static_cast<int64_t>(stepsOfOne * length / kTasks);
  ParallelOptions options;
  options.maxThreads = threads;
  options.microseconds = length;
  const double cpuBefore = cpuNow();
  const double end = now() + kBlock;
  int jobs = 0;
  for (; now() < end; ++jobs) {
    if (pause > 0) work(static_cast<int64_t>(stepsOfOne * pause));
    if (pause < 0) usleep(static_cast<useconds_t>(-pause));
    const double begin = now();
    ThreadPool::shared().parallelFor(
        kTasks, [](void* context, int64_t, int) { work(*static_cast<int64_t*>(context)); }, &steps, options);
    sample.times.push_back(now() - begin);
  }
  sample.cpu += cpuNow() - cpuBefore - std::max(0.0, pause) * jobs;
}

void compare(double length, double pause, int threads, double stepsOfOne) {
  Sample one, many;
  for (int round = 0; round < kRounds; ++round) {
    runBlock(length, pause, 1, stepsOfOne, one);
    runBlock(length, pause, threads, stepsOfOne, many);
  }
  printf("%6.0f  %6.0f", length, pause);
  for (Sample* sample : {&one, &many}) {
    printf("  %8.1f %8.1f %8.1f %8.1f", sample->at(0.5), sample->at(0.99), sample->mean(),
           sample->cpu / static_cast<double>(sample->times.size()));
  }
  printf("  %7.2f %7.2f\n", many.at(0.5) / one.at(0.5), many.mean() / one.mean());
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool& pool = ThreadPool::shared();
  const int neighbours = argc > 1 ? atoi(argv[1]) : 0;
  const int threads = argc > 2 ? atoi(argv[2]) : pool.numThreads();
  if (neighbours < 0 || threads < 1) {
    fprintf(stderr, "jobs: usage: jobs [neighbours] [threads]\n");
    return 1;
  }
  pool.setNumThreads(threads);
  const double stepsOfOne = stepsPerMicrosecond();
  std::vector<pid_t> children;  // before the pool has threads, which a fork would lose
  for (int i = 0; i < neighbours; ++i) children.push_back(startNeighbour());
  printf("%d threads on %d cores, beside %d processes\n", threads, ThreadPool::availableCores(), neighbours);
  printf("length   pause   1 thread: median, p99, mean, CPU   pool: the same                        medians   means\n");
  for (double length : kLengths) {
    for (double pause : kPauses) compare(length, pause, threads, stepsOfOne);
  }
  for (pid_t child : children) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  return 0;
}
