// How the kernels scale over threads, without Node: for machines on which nothing is installed but a compiler.
//   scaling [most threads] [ISA]
// For 1, 2, ... threads: prefill (GFLOP/s of useful work) and decode (GB/s of keys and values), their ratio to one thread,
// and their share of what as many threads reach in registers (FMA) or by a plain read.
// The thread counts take turns, round after round, and ratios are medians over rounds, since machines are seldom quiet.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "runtime/attention.h"
#include "runtime/cpu_features.h"
#include "runtime/dispatch.h"
#include "runtime/thread_pool.h"
#include "runtime/virtual_memory.h"

namespace {

using namespace sdpa;
using Clock = std::chrono::steady_clock;

constexpr int64_t kNumHeads = 32, kNumKvHeads = 8, kHeadDim = 128;
constexpr int kRounds = 9;

struct Work {
  const char* name;
  DType dtype;
  int64_t qLen, kvLen;
};
constexpr Work kWorks[] = {
    {"prefill float32 2048", kFloat32, 2048, 2048},
    {"prefill bfloat16 2048", kBFloat16, 2048, 2048},
    {"decode float32 32768", kFloat32, 1, 32768},
    {"decode bfloat16 32768", kBFloat16, 1, 32768},
};

double secondsOf(const std::function<void()>& body) {
  const auto begin = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Random numbers about as large as normal ones, in huge pages, as a cache has them.
class Values {
 public:
  Values(int64_t count, DType dtype) {
    const size_t bytes = roundUp(static_cast<size_t>(count) * (dtype == kFloat32 ? 4 : 2), kHugePageBytes);
    if (!range_.reserve(bytes) || !range_.commit(0, bytes)) {
      fprintf(stderr, "scaling: out of memory\n");
      exit(1);
    }
    uint64_t state = 88172645463325252u + static_cast<uint64_t>(count);
    for (int64_t i = 0; i < count; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const float value = (static_cast<float>(state >> 40) / 8388608.0f - 1.0f) * 1.7f;
      uint32_t bits;
      memcpy(&bits, &value, 4);
      if (dtype == kFloat32) {
        reinterpret_cast<float*>(range_.data())[i] = value;
      } else {
        reinterpret_cast<uint16_t*>(range_.data())[i] = static_cast<uint16_t>(bits >> 16);
      }
    }
  }
  uint8_t* data() const { return range_.data(); }

 private:
  AddressRange range_;
};

// q and out [numHeads, qLen, headDim], k and v [numKvHeads, kvLen, headDim], causal.
class Attention {
 public:
  explicit Attention(const Work& work)
      : work_(work),
        q_(kNumHeads * work.qLen * kHeadDim, work.dtype),
        out_(kNumHeads * work.qLen * kHeadDim, work.dtype),
        k_(kNumKvHeads * work.kvLen * kHeadDim, work.dtype),
        v_(kNumKvHeads * work.kvLen * kHeadDim, work.dtype) {
    sequence_.qLen = work.qLen;
    sequence_.kvLen = work.kvLen;
    sequence_.queryOffset = work.kvLen - work.qLen;
    problem_.numSequences = 1;
    problem_.numHeads = kNumHeads;
    problem_.numKvHeads = kNumKvHeads;
    problem_.groupSize = kNumHeads / kNumKvHeads;
    problem_.headDim = problem_.valueDim = kHeadDim;
    problem_.scale = 1.0f / sqrtf(static_cast<float>(kHeadDim));
    problem_.windowLeft = kOpen;
    problem_.windowRight = 0;
    problem_.qDType = problem_.kvDType = problem_.biasDType = work.dtype;
    problem_.sequences = &sequence_;
    problem_.q = q_.data();
    problem_.k = k_.data();
    problem_.v = v_.data();
    problem_.out = out_.data();
    problem_.qRowStride = problem_.kRowStride = problem_.vRowStride = problem_.outRowStride = kHeadDim;
    problem_.qHeadStride = problem_.outHeadStride = work.qLen * kHeadDim;
    problem_.kHeadStride = problem_.vHeadStride = work.kvLen * kHeadDim;
  }

  void run(int threads) {
    problem_.threads = threads;
    if (runAttention(problem_) != RunStatus::kDone) exit(1);
  }

  bool isDecode() const { return work_.qLen == 1; }
  const uint8_t* keys() const { return k_.data(); }
  double bytes() const { return 2.0 * static_cast<double>(kNumKvHeads * work_.kvLen * kHeadDim) * (work_.dtype == kFloat32 ? 4 : 2); }

  // GFLOP (the masked half left out) or GB that a run comes to.
  double amount() const {
    if (isDecode()) return bytes() / 1e9;
    const double length = static_cast<double>(work_.qLen);
    return 4.0 * kHeadDim * kNumHeads * length * (length + 1) / 2 / 1e9;
  }

 private:
  Work work_;
  Values q_, out_, k_, v_;
  Sequence sequence_{};
  Problem problem_{};
};

template <typename Body>
void onThreads(int threads, Body body) {
  ParallelOptions options;
  options.maxThreads = threads;
  ThreadPool::shared().parallelFor(
      threads, [](void* context, int64_t task, int) { (*static_cast<Body*>(context))(task); }, &body, options);
}

// GFLOP/s of independent FMAs, or GB/s of reading the keys, on so many threads.
double ceilingOf(const Attention& attention, int threadsWanted) {
  const KernelTable& kernels = activeKernels();
  const int threads = std::min(threadsWanted, ThreadPool::availableCores());
  std::vector<double> amounts(static_cast<size_t>(threads));
  const int64_t floats = static_cast<int64_t>(attention.bytes() / 2 / 4);  // k alone
  const double seconds = secondsOf([&] {
    onThreads(threads, [&](int64_t i) {
      float sink = 0;
      const int64_t begin = floats * i / threads, end = floats * (i + 1) / threads;
      if (attention.isDecode()) {
        sink = kernels.readProbe(reinterpret_cast<const float*>(attention.keys()) + begin, static_cast<size_t>(end - begin));
        amounts[static_cast<size_t>(i)] = 4.0 * static_cast<double>(end - begin) / 1e9 + (sink == 1 ? 1e-30 : 0);
      } else {
        amounts[static_cast<size_t>(i)] = kernels.fmaProbe(2000000, &sink) / 1e9;
      }
    });
  });
  double total = 0;
  for (double amount : amounts) total += amount;
  return total / seconds;
}

std::vector<int> threadCounts(int most) {
  std::vector<int> counts;
  for (int n = 1; n <= most; n += n < 4 ? 1 : n < 16 ? 2 : 8) counts.push_back(n);
  if (counts.back() != most) counts.push_back(most);
  return counts;
}

void printScaling(const Work& work, const std::vector<int>& counts) {
  Attention attention(work);
  std::vector<std::vector<double>> seconds(counts.size()), ratios(counts.size()), shares(counts.size());
  attention.run(0);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < counts.size(); ++i) {
      seconds[i].push_back(secondsOf([&] { attention.run(counts[i]); }));
      ratios[i].push_back(seconds[0].back() / seconds[i].back());
      shares[i].push_back(attention.amount() / seconds[i].back() / ceilingOf(attention, counts[i]));
    }
  }
  const char* unit = attention.isDecode() ? "GB/s" : "GFLOP/s";
  printf("\n%s, 32/8/128\nthreads        ms  %9s  x 1 thread  of %s\n", work.name, unit, attention.isDecode() ? "a read" : "FMA");
  for (size_t i = 0; i < counts.size(); ++i) {
    const double time = median(seconds[i]);
    printf("%7d  %8.3f  %9.1f  %10.2f  %6.0f%%\n", counts[i], 1e3 * time, attention.amount() / time, median(ratios[i]),
           100 * median(shares[i]));
  }
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool& pool = ThreadPool::shared();
  const int most = argc > 1 ? atoi(argv[1]) : pool.numThreads();
  if (most < 1 || most > ThreadPool::kMaxThreads || (argc > 2 && !selectKernels(argv[2]))) {
    fprintf(stderr, "scaling: usage: scaling [most threads] [ISA that this machine has]\n");
    return 1;
  }
  pool.setNumThreads(most);
  printf("%s, %d cores, %s\n", cpuFeatures().brand, ThreadPool::availableCores(), activeKernels().isa);
  const std::vector<int> counts = threadCounts(most);
  for (const Work& work : kWorks) printScaling(work, counts);
  return 0;
}
