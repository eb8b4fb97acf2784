// A plan does all the work once, whatever the number of threads.
#include "../runtime/schedule.h"

#include <algorithm>
#include <map>
#include <set>

#include "isas.h"
#include "naive_attention.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::kDecodeChunk;
using sdpa::Plan;

std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all;
  Random random(11);
  for (int i = 0; i < 60; ++i) {
    AttentionCase c;
    c.sequences.clear();
    for (int64_t s = random.below(3); s >= 0; --s) {
      const int64_t qLen = random.below(4) == 0 ? 1 : random.below(700), kvLen = random.below(5) == 0 ? 0 : random.below(1700);
      c.sequences.push_back({qLen, kvLen});
    }
    c.numKvHeads = 1 + random.below(2);
    c.groupSize = 1 + random.below(5);
    c.headDim = c.valueDim = 1;
    c.offsetShift = random.below(3) == 0 ? random.below(2000) - 1000 : 0;
    if (random.below(2)) c.windowRight = random.below(10) - 3;
    if (random.below(2)) c.windowLeft = random.below(600);
    if (random.below(3) == 0) c.sinkTokens = random.below(20);
    all.push_back(c);
  }
  return all;
}

// Each query row belongs to the prefill tasks or to the decode tasks, and to each once.
void checkRowsAreDealtOnce(const AttentionInstance& a, const Plan& plan, int64_t tileRows) {
  for (int64_t s = 0; s < a.problem.numSequences; ++s) {
    const int64_t rows = a.sequences[static_cast<size_t>(s)].qLen * a.spec.groupSize;
    for (int64_t head = 0; head < a.spec.numKvHeads; ++head) {
      std::vector<int> owners(static_cast<size_t>(rows));
      for (const sdpa::PrefillTask& task : plan.prefill) {
        if (task.sequence != s || task.kvHead != head) continue;
        CHECK(task.rowBegin < task.rowEnd && task.rowEnd <= rows);
        CHECK(task.rowBegin % tileRows == 0 && (task.rowEnd % tileRows == 0 || task.rowEnd == rows));
        for (int64_t row = task.rowBegin; row < task.rowEnd; ++row) ++owners[static_cast<size_t>(row)];
      }
      for (const sdpa::DecodeHead& merged : plan.heads) {
        if (merged.task.sequence != s || merged.task.kvHead != head) continue;
        CHECK(rows <= sdpa::kMaxDecodeRows);
        for (int& owner : owners) ++owner;
      }
      CHECK(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
    }
  }
}

// Each visible pair of a decoded row and a key lies in one task, and every task has such a pair.
void checkKeysAreDealtOnce(const AttentionInstance& a, const Plan& plan) {
  for (size_t h = 0; h < plan.heads.size(); ++h) {
    const sdpa::DecodeHead& head = plan.heads[h];
    const sdpa::Sequence& sequence = a.sequences[static_cast<size_t>(head.task.sequence)];
    std::vector<int> tasks(static_cast<size_t>(sequence.kvLen));
    for (int64_t t = head.firstTask; t < head.firstTask + head.numTasks; ++t) {
      const sdpa::DecodeTask& task = plan.decode[static_cast<size_t>(t)];
      CHECK_EQ(plan.headOfTask[static_cast<size_t>(t)], static_cast<int64_t>(h));
      CHECK(task.sequence == head.task.sequence && task.kvHead == head.task.kvHead);
      CHECK(task.keyBegin < task.keyEnd && task.keyEnd <= sequence.kvLen);
      CHECK_EQ(task.keyBegin / kDecodeChunk, (task.keyEnd - 1) / kDecodeChunk);
      bool seesSomething = false;
      for (int64_t key = task.keyBegin; key < task.keyEnd; ++key) {
        ++tasks[static_cast<size_t>(key)];
        for (int64_t i = 0; i < sequence.qLen && !seesSomething; ++i) seesSomething = isVisible(a, task.sequence, 0, i, key);
      }
      CHECK(seesSomething);
    }
    for (int64_t key = 0; key < sequence.kvLen; ++key) {
      const int count = tasks[static_cast<size_t>(key)];
      bool isSeen = false;
      for (int64_t i = 0; i < sequence.qLen && !isSeen; ++i) isSeen = isVisible(a, head.task.sequence, 0, i, key);
      CHECK(count == 1 || (count == 0 && !isSeen));
    }
  }
}

// Workspaces are large enough and do not overlap.
void checkMemory(const AttentionInstance& a, const Plan& plan, const sdpa::KernelTable& kernels) {
  for (const sdpa::PrefillTask& task : plan.prefill) {
    CHECK(plan.scratchBytes >= kernels.prefillScratchBytes(a.problem, task.rowEnd - task.rowBegin));
  }
  int64_t next = 0;
  for (size_t t = 0; t < plan.decode.size(); ++t) {
    const int64_t rows = a.sequences[static_cast<size_t>(plan.decode[t].sequence)].qLen * a.spec.groupSize;
    CHECK(plan.scratchBytes >= kernels.decodeScratchBytes(a.problem, rows));
    CHECK_EQ(plan.partialOffset[t], next);
    next += sdpa::decodePartialFloats(rows, a.spec.valueDim);
  }
  CHECK_EQ(plan.partialFloats, next);
}

TEST(schedule_doesAllTheWorkOnce) {
  for (const AttentionCase& c : cases()) {
    const AttentionInstance instance(c);
    for (const Isa& isa : isas()) {
      for (int threads : {1, 2, 7, 64}) {
        Plan plan;
        makePlan(isa.kernels, instance.problem, threads, plan);
        checkRowsAreDealtOnce(instance, plan, isa.kernels.tileRows);
        checkMemory(instance, plan, isa.kernels);
        if (threads == 1) checkKeysAreDealtOnce(instance, plan);
        if (failures() == 0) continue;
        std::cout << "    " << isa.kernels.isa << ", " << threads << " threads, " << describe(c) << "\n";
        return;
      }
    }
  }
}

TEST(schedule_threadsChangeOnlyTheCutOfRows) {
  for (const AttentionCase& c : cases()) {
    const AttentionInstance instance(c);
    Plan one, many;
    makePlan(isas()[0].kernels, instance.problem, 1, one);
    makePlan(isas()[0].kernels, instance.problem, 16, many);
    CHECK_EQ(one.microseconds, many.microseconds);
    CHECK_EQ(one.decode.size(), many.decode.size());
    for (size_t t = 0; t < one.decode.size(); ++t) {
      CHECK(one.decode[t].keyBegin == many.decode[t].keyBegin && one.decode[t].keyEnd == many.decode[t].keyEnd);
    }
  }
}

TEST(schedule_aPlanCanBeMadeAgain) {
  const AttentionInstance large(cases()[0]), small(AttentionCase{});
  Plan used, fresh;
  makePlan(isas()[0].kernels, large.problem, 3, used);
  makePlan(isas()[0].kernels, small.problem, 3, used);
  makePlan(isas()[0].kernels, small.problem, 3, fresh);
  CHECK_EQ(used.decode.size(), fresh.decode.size());
  CHECK_EQ(used.prefill.size(), fresh.prefill.size());
  CHECK_EQ(used.heads.size(), fresh.heads.size());
  CHECK_EQ(used.scratchBytes, fresh.scratchBytes);
  CHECK_EQ(used.partialFloats, fresh.partialFloats);
}

}  // namespace
