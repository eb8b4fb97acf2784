// Statistics of the weights on every ISA against naive float64; inputs and results touch guard pages, scratch holds NaN.
#include "../runtime/stats.h"

#include <float.h>

#include "../runtime/thread_pool.h"
#include "emulator.h"
#include "isas.h"
#include "naive_attention.h"
#include "run_kernels.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::Problem;
using sdpa::StatsOutput;
using sdpa::ThreadPool;

constexpr int kNumStats = 4;
const char* const kNames[kNumStats] = {"entropy", "maxWeight", "windowMass", "lse"};

// The results of an instance, [head][token] as its lse.
struct StatsInstance : AttentionInstance {
  GuardedBuffer<float> entropy, maxWeight, windowMass;
  GuardedBuffer<int32_t> argmax;
  StatsOutput output{};

  explicit StatsInstance(const AttentionCase& c)
      : AttentionInstance(c), entropy(count()), maxWeight(count()), windowMass(count()), argmax(count()) {
    output = {entropy.data(), maxWeight.data(), argmax.data(), windowMass.data(), 9, 2, 3};
    problem.v = nullptr;
    problem.valueDim = problem.vHeadStride = problem.vRowStride = 0;
    for (sdpa::Sequence& sequence : sequences) sequence.vOffset = 0;
  }
  size_t count() const { return static_cast<size_t>(numHeads() * totalQ); }
  void clear() {
    lse->poison();
    for (float* stat : {output.entropy, output.maxWeight, output.windowMass}) memset(stat, 0xFF, count() * 4);
    memset(output.argmax, 0xFF, count() * 4);
  }
  std::vector<float> resultOf(size_t index) const {
    return {entropy[index], maxWeight[index], windowMass[index], lse->get(static_cast<int64_t>(index))};
  }
};

// The same statistics of one row as the words say them; argmax is the first key of the largest score.
template <class Real>
std::vector<Real> naiveStats(const StatsInstance& a, int64_t s, int64_t head, int64_t i, int64_t* argmax) {
  const sdpa::Sequence& sequence = a.sequences[static_cast<size_t>(s)];
  const Real none = -static_cast<Real>(INFINITY), sink = a.sinks ? a.sinks->floats[static_cast<size_t>(head)] : none;
  std::vector<Real> scores;
  Real top = none, l = 0, entropy = 0, mass = 0;
  *argmax = -1;
  for (int64_t j = 0; j < sequence.kvLen; ++j) {
    scores.push_back(isVisible(a, s, head, i, j) ? naiveScore<Real>(a, s, head, i, j) : none);
    if (scores.back() > top) top = scores.back(), *argmax = j;
  }
  scores.push_back(sink);
  const Real m = sink > top ? sink : top;
  for (Real score : scores) l += score == none ? 0 : std::exp(score - m);
  if (l == 0) return {0, 0, 0, none};
  for (int64_t j = 0; j <= sequence.kvLen; ++j) {
    if (scores[static_cast<size_t>(j)] == none) continue;
    const Real p = std::exp(scores[static_cast<size_t>(j)] - m) / l;
    if (p != 0) entropy -= p * std::log(p);
    const int64_t position = sequence.queryOffset + i;
    const bool counts = j < sequence.kvLen && j <= position + 2 && (j >= position - 9 || j < 3);
    mass += counts ? p : 0;
  }
  if (l != l) *argmax = -1;
  return {entropy, l != l ? l : std::exp(top - m) / l, l != l ? l : mass, m + std::log(l)};
}

template <class Fn>
void forEachRow(const StatsInstance& a, Fn fn) {
  for (int64_t s = 0; s < a.problem.numSequences; ++s) {
    for (int64_t h = 0; h < a.numHeads(); ++h) {
      for (int64_t i = 0; i < a.sequences[static_cast<size_t>(s)].qLen; ++i) fn(s, h, i, static_cast<size_t>(a.lseAt(s, h, i)));
    }
  }
}

// Twice the error of naive float32, and a few units in the last place of numbers near 1.
std::vector<double> tolerancesOf(const StatsInstance& a) {
  std::vector<double> errors(kNumStats, 0.0);
  int64_t argmax;
  forEachRow(a, [&](int64_t s, int64_t h, int64_t i, size_t) {
    const std::vector<double> exact = naiveStats<double>(a, s, h, i, &argmax);
    const std::vector<float> naive = naiveStats<float>(a, s, h, i, &argmax);
    for (size_t n = 0; n < kNumStats; ++n) {
      if (!std::isfinite(exact[n])) continue;
      const double floor = 4 * FLT_EPSILON * std::max(1.0, std::fabs(exact[n]));
      errors[n] = std::max(errors[n], 2 * std::fabs(static_cast<double>(naive[n]) - exact[n]) + floor);
    }
  });
  return errors;
}

void checkResults(const StatsInstance& a, const std::vector<double>& tolerances, const char* isa) {
  forEachRow(a, [&](int64_t s, int64_t h, int64_t i, size_t index) {
    int64_t argmax;
    const std::vector<double> want = naiveStats<double>(a, s, h, i, &argmax);
    const std::vector<float> got = a.resultOf(index);
    for (size_t n = 0; n < kNumStats; ++n) {
      const double actual = static_cast<double>(got[n]);
      const bool same = std::isnan(want[n]) ? std::isnan(actual) : actual == want[n];
      if (same || std::fabs(actual - want[n]) <= tolerances[n]) continue;
      fail(__FILE__, __LINE__, std::string(isa) + " " + kNames[n] + "[head " + std::to_string(h) + "][row " +
                                   std::to_string(i) + "] is " + std::to_string(actual) + ", expected " +
                                   std::to_string(want[n]) + "\n    " + describe(a.spec));
    }
    if (a.argmax[index] == argmax) return;
    // A near tie: another key is right if its weight is as large as float32 can tell.
    const bool isTie = argmax >= 0 && a.argmax[index] >= 0 && isVisible(a, s, h, i, a.argmax[index]) &&
                       naiveScore<double>(a, s, h, i, argmax) - naiveScore<double>(a, s, h, i, a.argmax[index]) < 1e-5;
    CHECK(isTie);
  });
}

void runKernel(const sdpa::KernelTable& kernels, const StatsInstance& a, int64_t taskRows) {
  const Problem& problem = a.problem;
  const int64_t step = (taskRows + kernels.tileRows - 1) / kernels.tileRows * kernels.tileRows;
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    const int64_t rows = problem.sequences[s].qLen * problem.groupSize;
    if (rows == 0) continue;
    PoisonedScratch scratch(kernels.statsScratchBytes(problem, step < rows ? step : rows));
    for (int64_t head = 0; head < problem.numKvHeads; ++head) {
      for (int64_t row = 0; row < rows; row += step) {
        kernels.stats(problem, a.output, {s, head, row, row + step < rows ? row + step : rows}, scratch.fresh());
      }
    }
  }
}

void check(StatsInstance& instance) {
  if (!isWorthwhile()) return;
  const std::vector<double> tolerances = tolerancesOf(instance);
  for (const Isa& isa : isas()) {
    instance.clear();
    runKernel(isa.kernels, instance, 4096);
    checkResults(instance, tolerances, isa.kernels.isa);
  }
}

AttentionCase caseOf(int64_t qLen, int64_t kvLen, uint64_t seed = 1) {
  AttentionCase c;
  c.sequences = {{qLen, kvLen}};
  c.headDim = 20;
  c.seed = seed;
  return c;
}

TEST(stats_edges) {
  uint64_t seed = 0;
  for (int64_t kvLen : {1, 3, 15, 16, 17, 255, 256, 257, 513, 700}) {
    for (int64_t qLen : {1, 5, 24, 25, 49, 97}) {
      AttentionCase c = caseOf(qLen, kvLen, ++seed);
      if (seed % 2) c.windowRight = 0;
      StatsInstance instance(c);
      check(instance);
    }
  }
}

std::vector<AttentionCase> casesOfOptions() {
  std::vector<AttentionCase> cases(8, caseOf(40, 330));
  cases[0].mask = Operand::kFull;
  cases[1].bias = Operand::kFull, cases[1].softcap = 1.5f, cases[1].alibi = true;
  cases[2].windowLeft = 70, cases[2].windowRight = 4, cases[2].sinkTokens = 6, cases[2].sinks = true;
  cases[3].offsetShift = -340, cases[3].windowRight = 0;                        // rows that see nothing
  cases[4].offsetShift = -340, cases[4].windowRight = 0, cases[4].sinks = true;  // but the sink
  cases[5].sequences = {{3, 300}, {0, 4}, {60, 7}, {5, 0}, {1, 1}}, cases[5].mask = Operand::kOneRow;
  cases[6].qDType = cases[6].kvDType = sdpa::kBFloat16, cases[6].padding = 3;
  cases[7].qDType = cases[7].kvDType = sdpa::kFloat16, cases[7].groupSize = 5, cases[7].numKvHeads = 3;
  return cases;
}

TEST(stats_options) {
  for (const AttentionCase& c : casesOfOptions()) {
    StatsInstance instance(c);
    check(instance);
  }
}

TEST(stats_nanReachesTheRowsThatSeeItOnly) {
  for (const AttentionCase& c : casesOfOptions()) {
    for (float value : {NAN, INFINITY}) {
      StatsInstance instance(c);
      for (int64_t key : {2, 5, 6}) instance.k->values.set(key * instance.k->rowStride + key, value);
      check(instance);
    }
  }
}

TEST(stats_firstOfEqualScores) {
  AttentionCase c = caseOf(30, 600);
  StatsInstance instance(c);
  for (int64_t j = 0; j < 600; ++j) {
    for (int64_t d = 0; d < c.headDim; ++d) {
      const float query = instance.q->values.get(instance.qRow(0, 0, 29) + d);
      if (j % 97 == 40) instance.k->values.set(instance.kRow(0, 0, j) + d, 3.0f * query);
    }
  }
  for (const Isa& isa : isas()) {
    runKernel(isa.kernels, instance, 4096);
    CHECK_EQ(instance.argmax[static_cast<size_t>(instance.lseAt(0, 0, 29))], 40);
  }
}

TEST(stats_theCutOfRowsAndTheNumberOfThreadsChangeNoBit) {
  AttentionCase c = caseOf(130, 520);
  c.groupSize = 3;
  c.windowRight = 0;
  c.windowLeft = 300;
  StatsInstance instance(c);
  const char* activeIsa = sdpa::activeKernels().isa;
  const int activeThreads = ThreadPool::shared().numThreads();
  for (const Isa& isa : isas()) {
    const auto bitsOf = [&] {
      std::vector<float> bits;
      for (size_t i = 0; i < instance.count(); ++i) {
        for (float x : instance.resultOf(i)) bits.push_back(x);
        bits.push_back(static_cast<float>(instance.argmax[i]));
      }
      return bits;
    };
    runKernel(isa.kernels, instance, 4096);
    const std::vector<float> whole = bitsOf();
    for (int64_t tiles : {1, 2, 3}) {
      if (!isWorthwhile()) continue;
      instance.clear();
      runKernel(isa.kernels, instance, tiles * isa.kernels.tileRows);
      CHECK(bitsOf() == whole);
    }
    CHECK(sdpa::selectKernels(isa.kernels.isa));
    for (int threads : {1, 2, 5}) {
      instance.clear();
      ThreadPool::shared().setNumThreads(threads);
      CHECK(sdpa::runStats(instance.problem, instance.output) == sdpa::RunStatus::kDone);
      CHECK(bitsOf() == whole);
    }
  }
  sdpa::selectKernels(activeIsa);
  ThreadPool::shared().setNumThreads(activeThreads);
}

}  // namespace
