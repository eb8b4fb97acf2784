// Attention over many caches at once, against each of them by itself.
#include "../runtime/step_all.h"

#include <math.h>

#include <memory>
#include <vector>

#include "../runtime/dispatch.h"
#include "../runtime/shared_prefix.h"
#include "../runtime/thread_pool.h"
#include "attention_case.h"
#include "isas.h"
#include "test.h"

namespace {

using namespace sdpa;

constexpr int64_t kHeads = 2, kGroup = 3, kDim = 20, kValueDim = 12, kQueries = 2;

std::vector<float> randomRows(int64_t count, uint64_t seed) {
  test::Random random(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random.normal());
  return values;
}

void append(KvTokens& cache, int64_t tokens, uint64_t seed) {
  const std::vector<float> k = randomRows(kHeads * tokens * kDim, seed);
  const std::vector<float> v = randomRows(kHeads * tokens * kValueDim, seed + 1000);
  CHECK(cache.append({k.data(), 0, tokens * kDim * 4, kDim * 4}, {v.data(), 0, tokens * kValueDim * 4, kValueDim * 4},
                     tokens));
}

// A family: the root, forks of it, forks of a fork; each with tokens of its own.
struct Family {
  std::vector<std::unique_ptr<KvTokens>> caches;

  KvTokens& fork(const KvTokens& parent, int64_t more) {
    caches.emplace_back(new KvTokens);
    caches.back()->forkFrom(parent);
    append(*caches.back(), more, caches.size());
    return *caches.back();
  }

  Family(int64_t prefix, int64_t forks) {
    KvCacheConfig config;
    config.numKvHeads = kHeads;
    config.headDim = kDim;
    config.valueDim = kValueDim;
    caches.emplace_back(new KvTokens);
    CHECK(caches[0]->reserve(config, {}));
    append(*caches[0], prefix, 77);
    for (int64_t i = 0; i < forks; ++i) fork(*caches[0], 3 + 50 * (i % 3));
    KvTokens& branch = fork(*caches[1], 300);
    for (int64_t i = 0; i < 3; ++i) fork(branch, 5);
    caches.emplace_back(new KvTokens);  // a stranger
    CHECK(caches.back()->reserve(config, {}));
    append(*caches.back(), 100, 78);
  }

  std::vector<const KvTokens*> list() const {
    std::vector<const KvTokens*> all;
    for (const auto& cache : caches) all.push_back(cache.get());
    return all;
  }
};

struct Call {
  std::vector<float> q, out, lse, sinks;
  std::vector<Sequence> sequences;
  Problem problem{};

  explicit Call(const Family& family) {
    const int64_t n = static_cast<int64_t>(family.caches.size()), numHeads = kHeads * kGroup;
    q = randomRows(n * numHeads * kQueries * kDim, 5);
    out.assign(static_cast<size_t>(n * numHeads * kQueries * kValueDim), NAN);
    lse.assign(static_cast<size_t>(n * numHeads * kQueries), NAN);
    sinks.assign(static_cast<size_t>(numHeads), 0.5f);
    for (int64_t i = 0; i < n; ++i) {
      Sequence sequence{};
      sequence.qLen = kQueries;
      sequence.kvLen = family.caches[static_cast<size_t>(i)]->length();
      sequence.queryOffset = sequence.kvLen - kQueries;
      sequence.qOffset = i * numHeads * kQueries * kDim;
      sequence.outOffset = i * numHeads * kQueries * kValueDim;
      sequence.lseOffset = i * numHeads * kQueries;
      sequences.push_back(sequence);
    }
    problem.numSequences = n;
    problem.numHeads = numHeads;
    problem.numKvHeads = kHeads;
    problem.groupSize = kGroup;
    problem.headDim = kDim;
    problem.valueDim = kValueDim;
    problem.scale = 0.3f;
    problem.windowLeft = kOpen;
    problem.qHeadStride = kQueries * kDim;
    problem.qRowStride = kDim;
    problem.outHeadStride = kQueries * kValueDim;
    problem.outRowStride = kValueDim;
    problem.lseHeadStride = kQueries;
    problem.lseRowStride = 1;
    problem.sinks = sinks.data();
    problem.q = q.data();
    problem.out = out.data();
    problem.lse = lse.data();
  }
};

// Sequence i by itself: nothing is shared then.
void attendAlone(Call& call, const Family& family, size_t i) {
  std::vector<Sequence> one;
  one.push_back(call.sequences[i]);
  Problem problem = call.problem;
  problem.numSequences = 1;
  CHECK(attendAll(problem, one, {family.caches[i].get()}) == RunStatus::kDone);
}

// The largest difference; Infinity where there is a NaN. (GCC 12 for arm64 fails on loops over fmax.)
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= worst)) worst = difference == difference ? difference : INFINITY;
  }
  return worst;
}

TEST(stepAll_isEachCacheByItself) {
  const char* const inUse = activeKernels().isa;
  for (const test::Isa& isa : test::isas()) {
    CHECK(selectKernels(isa.kernels.isa));
    for (int64_t forks : {2, 9, 60}) {
      const Family family(2100, forks);
      Call together(family), alone(family);
      CHECK(attendAll(together.problem, together.sequences, family.list()) == RunStatus::kDone);
      for (size_t i = 0; i < family.caches.size(); ++i) attendAlone(alone, family, i);
      CHECK(distance(together.out, alone.out) < 1e-6);
      CHECK(distance(together.lse, alone.lse) < 5e-6);
    }
  }
  selectKernels(inUse);
}

TEST(stepAll_hasTheSameBitsWhateverTheNumberOfThreads) {
  const Family family(2100, 20);
  std::vector<float> first;
  for (int threads : {1, 2, 5}) {
    Call call(family);
    call.problem.threads = threads;
    CHECK(attendAll(call.problem, call.sequences, family.list()) == RunStatus::kDone);
    if (first.empty()) first.swap(call.out);
    else CHECK(call.out == first);
  }
}

TEST(sharedKeys_ofAFamily) {
  const Family family(2100, 4);
  std::vector<KeyRun> runs[16];
  std::vector<Sequence> sequences;
  std::vector<int64_t> limits;
  for (size_t i = 0; i < family.caches.size(); ++i) {
    family.caches[i]->appendRuns(0, runs[i]);
    Sequence sequence{};
    sequence.runs = runs[i].data();
    sequence.numRuns = static_cast<int64_t>(runs[i].size());
    sequences.push_back(sequence);
    limits.push_back(family.caches[i]->length());
  }
  const std::vector<SharedKeys> shared = findSharedKeys(sequences, limits);
  // All but the stranger share the root's keys; the branch and its children also what the branch appended.
  CHECK_EQ(shared.size(), size_t{2});
  CHECK_EQ(shared[0].begin, 0);
  CHECK_EQ(shared[0].end, 2048);
  CHECK_EQ(shared[0].members.size(), size_t{9});
  CHECK_EQ(shared[1].begin, 2048);
  CHECK_EQ(shared[1].end, 2368);
  CHECK_EQ(shared[1].members.size(), size_t{4});
  for (const SharedKeys& keys : shared) {
    CHECK(keys.begin < keys.end);
    CHECK_EQ(keys.end % kRunAlign, 0);
  }
  limits[2] = 100;  // it cannot see more
  CHECK_EQ(findSharedKeys(sequences, limits)[0].end, 64);
  CHECK_EQ(findSharedKeys(sequences, limits)[1].end, 2048);
  CHECK_EQ(findSharedKeys(sequences, limits)[1].members.size(), size_t{8});
}

}  // namespace
