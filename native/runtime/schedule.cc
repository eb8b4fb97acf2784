#include "runtime/schedule.h"

#include <algorithm>

#include "intervals.h"

namespace sdpa {
namespace {

// A prefill task's rows: enough of them that packing K and V costs little (3% at 480 rows, 0.7% at 2064), few
// enough that its scratch (the rows of q and o in float32) stays within a few MiB.
constexpr int64_t kGoodTaskRows = 960;
constexpr int64_t kMaxTaskRows = 4128;
constexpr int64_t kMaxTaskFloats = int64_t{1} << 20;

// Towards the end tasks are cut as short as this, so that nobody waits long for the last one.
constexpr int64_t kLeastTaskRows = 480;

// What one thread does in a microsecond, roughly: products, and bytes of keys and values that come from memory.
constexpr double kFlopsPerMicrosecond = 100e3;
constexpr double kBytesPerMicrosecond = 30e3;

struct TaskRows {
  int64_t target, most;
};

// Sum over rows [begin, end) of the keys they see, from both ends of the range.
double visiblePairs(const Problem& problem, const Sequence& sequence, int64_t rowBegin, int64_t rowEnd) {
  const auto keys = [&](int64_t row) {
    const KeyInterval k = visibleKeys(problem, sequence, row / problem.groupSize);
    return static_cast<double>(k.end - k.begin + minimum(k.sinkEnd, k.begin));
  };
  return 0.5 * (keys(rowBegin) + keys(rowEnd - 1)) * static_cast<double>(rowEnd - rowBegin);
}

double flopsPerPair(const Problem& problem) {
  return 2.0 * static_cast<double>(problem.headDim + problem.valueDim);
}

// Cuts each KV head's rows evenly into tasks of about taskRows and at most maxRows.
void planPrefill(const KernelTable& kernels, const Problem& problem, int64_t s, const TaskRows& taskRows, Plan& plan) {
  const int64_t rows = problem.sequences[s].qLen * problem.groupSize;
  const int64_t cuts = maximum((rows + taskRows.most - 1) / taskRows.most, (rows + taskRows.target / 2) / taskRows.target);
  const int64_t length = roundUp((rows + maximum(cuts, 1) - 1) / maximum(cuts, 1), kernels.tileRows);
  for (int64_t head = 0; head < problem.numKvHeads; ++head) {
    for (int64_t row = 0; row < rows; row += length) {
      plan.prefill.push_back({s, head, row, minimum(row + length, rows)});
    }
  }
  plan.scratchBytes = std::max(plan.scratchBytes, kernels.prefillScratchBytes(problem, minimum(length, rows)));
  plan.microseconds += visiblePairs(problem, problem.sequences[s], 0, rows) * flopsPerPair(problem) *
                       static_cast<double>(problem.numKvHeads) / kFlopsPerMicrosecond;
}

double microsecondsOf(const Problem& problem, const DecodeTask& task) {
  const Sequence& sequence = problem.sequences[task.sequence];
  const double keys = static_cast<double>(task.keyEnd - task.keyBegin);
  const double bytes = keys * static_cast<double>((problem.headDim + problem.valueDim) * (problem.kvDType == kFloat32 ? 4 : 2));
  const double flops = keys * static_cast<double>(sequence.qLen * problem.groupSize) * flopsPerPair(problem);
  return std::max(bytes / kBytesPerMicrosecond, flops / kFlopsPerMicrosecond);
}

void planDecode(const KernelTable& kernels, const Problem& problem, int64_t s, Plan& plan) {
  const Sequence& sequence = problem.sequences[s];
  const int64_t rows = sequence.qLen * problem.groupSize;
  const int64_t partialFloats = decodePartialFloats(rows, problem.valueDim);
  const KeyHull hull = hullOf(problem, sequence, 0, sequence.qLen - 1);
  for (int64_t head = 0; head < problem.numKvHeads; ++head) {
    const int64_t firstTask = static_cast<int64_t>(plan.decode.size());
    for (int64_t chunk = 0; chunk < sequence.kvLen; chunk += kDecodeChunk) {
      int64_t begin = chunk, end = minimum(chunk + kDecodeChunk, sequence.kvLen);
      hull.clip(begin, end);
      if (begin >= end) continue;
      plan.decode.push_back({s, head, begin, end, nullptr});
      plan.microseconds += microsecondsOf(problem, plan.decode.back());
      plan.partialOffset.push_back(plan.partialFloats);
      plan.headOfTask.push_back(static_cast<int64_t>(plan.heads.size()));
      plan.partialFloats += partialFloats;
    }
    const int64_t numTasks = static_cast<int64_t>(plan.decode.size()) - firstTask;
    plan.heads.push_back({firstTask, numTasks, {s, head, 0, 0, nullptr}, partialFloats});
  }
  plan.scratchBytes = std::max(plan.scratchBytes, kernels.decodeScratchBytes(problem, rows));
}

double flopsOf(const Problem& problem, const PrefillTask& task) {
  return visiblePairs(problem, problem.sequences[task.sequence], task.rowBegin, task.rowEnd) * flopsPerPair(problem);
}

void sortMostExpensiveFirst(const Problem& problem, std::vector<PrefillTask>& tasks) {
  std::stable_sort(tasks.begin(), tasks.end(), [&](const PrefillTask& a, const PrefillTask& b) {
    return flopsOf(problem, a) > flopsOf(problem, b);
  });
}

// Cuts tasks up that are longer than half of a thread's share of what is left when they are claimed: the last ones.
void shortenTheEnd(const KernelTable& kernels, const Problem& problem, int threads, std::vector<PrefillTask>& tasks) {
  double left = 0;
  for (const PrefillTask& task : tasks) left += flopsOf(problem, task);
  const size_t count = tasks.size();
  for (size_t i = 0; i < count && left > 0; ++i) {
    const PrefillTask whole = tasks[i];
    const int64_t rows = whole.rowEnd - whole.rowBegin;
    const double flops = flopsOf(problem, whole);
    const int64_t wanted = static_cast<int64_t>(2.0 * threads * flops / left);
    left -= flops;
    const int64_t cuts = minimum(wanted, rows / kLeastTaskRows);
    if (cuts < 2) continue;
    const int64_t length = roundUp((rows + cuts - 1) / cuts, kernels.tileRows);
    tasks[i].rowEnd = whole.rowBegin + length;
    for (int64_t row = tasks[i].rowEnd; row < whole.rowEnd; row += length) {
      tasks.push_back({whole.sequence, whole.kvHead, row, minimum(row + length, whole.rowEnd)});
    }
  }
  sortMostExpensiveFirst(problem, tasks);
}

// A quarter of a thread's fair share, so that the threads end together; but up to half of it where that makes tasks good.
TaskRows prefillTaskRows(const KernelTable& kernels, const Problem& problem, int threads) {
  int64_t totalRows = 0;
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    totalRows += problem.sequences[s].qLen * problem.groupSize * problem.numKvHeads;
  }
  const int64_t most = minimum(kMaxTaskRows, kMaxTaskFloats / (problem.headDim + problem.valueDim));
  const int64_t wholeTiles = maximum(1, most / kernels.tileRows) * kernels.tileRows;
  if (threads == 1) return {wholeTiles, wholeTiles};
  const int64_t share = totalRows / threads;
  const int64_t target = maximum(share / 4, minimum(kGoodTaskRows, share / 2));
  return {minimum(wholeTiles, maximum(2 * kernels.tileRows, target)), wholeTiles};
}

}  // namespace

void Plan::clear() {
  prefill.clear();
  decode.clear();
  partialOffset.clear();
  headOfTask.clear();
  heads.clear();
  partialFloats = 0;
  microseconds = 0;
  scratchBytes = 0;
}

void makePlan(const KernelTable& kernels, const Problem& problem, int threads, Plan& plan) {
  plan.clear();
  const TaskRows taskRows = prefillTaskRows(kernels, problem, threads);
  for (int64_t s = 0; s < problem.numSequences; ++s) {
    const int64_t rows = problem.sequences[s].qLen * problem.groupSize;
    if (rows == 0) continue;
    if (rows <= kMaxDecodeRows) {
      planDecode(kernels, problem, s, plan);
    } else {
      planPrefill(kernels, problem, s, taskRows, plan);
    }
  }
  sortMostExpensiveFirst(problem, plan.prefill);
  if (threads > 1) shortenTheEnd(kernels, problem, threads, plan.prefill);
}

}  // namespace sdpa
