// Caches from several threads at once, as worker_threads and asynchronous calls use them; meant for ThreadSanitizer. Only one
// thread changes caches that share memory; others read what was cached before.
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "../runtime/attention.h"
#include "../runtime/kv_tokens.h"
#include "../runtime/step_all.h"
#include "attention_case.h"
#include "test.h"

namespace {

using sdpa::KvCacheConfig;
using sdpa::KvSource;
using sdpa::KvTokens;
using sdpa::Problem;
using sdpa::RunStatus;
using sdpa::Sequence;

constexpr int64_t kHeads = 2, kDim = 16;
constexpr KvCacheConfig kConfig{1, kHeads, kDim, kDim, 4, 0};

struct Rows {
  std::vector<float> data;
  KvSource source;

  explicit Rows(int64_t tokens) : data(static_cast<size_t>(kHeads * tokens * kDim)) {
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i % 17) / 17.0f;
    source = {data.data(), 0, tokens * kDim * 4, kDim * 4};
  }
};

void append(KvTokens& cache, int64_t tokens) {
  const Rows rows(tokens);
  CHECK(cache.append(rows.source, rows.source, tokens));
}

// One query a head, against the first kvLen tokens of each cache.
struct Query {
  std::vector<float> q, out;
  std::vector<Sequence> sequences;
  Problem problem{};

  Query(size_t caches, int64_t kvLen) : q(caches * kHeads * kDim, 0.25f), out(q.size()), sequences(caches) {
    problem.numSequences = static_cast<int64_t>(caches);
    problem.numHeads = problem.numKvHeads = kHeads;
    problem.groupSize = 1;
    problem.headDim = problem.valueDim = kDim;
    problem.scale = 0.25f;
    problem.windowLeft = sdpa::kOpen;
    problem.windowRight = 0;
    problem.qHeadStride = problem.outHeadStride = kDim;
    problem.qRowStride = problem.outRowStride = kHeads * kDim;
    problem.q = q.data();
    problem.out = out.data();
    problem.sequences = sequences.data();
    for (size_t i = 0; i < caches; ++i) {
      sequences[i].qLen = 1;
      sequences[i].kvLen = kvLen;
      sequences[i].queryOffset = kvLen - 1;
      sequences[i].qOffset = sequences[i].outOffset = static_cast<int64_t>(i) * kHeads * kDim;
    }
  }
};

// A reader attends to forks that nobody changes, while another thread appends to, truncates, forks and releases caches that hold
// the same memory.
TEST(kvThreads_readersOfASharedPrefixBesideItsWriter) {
  const int64_t prefix = 700;
  KvTokens root;
  CHECK(root.reserve(kConfig, {}));
  append(root, prefix);
  std::vector<std::unique_ptr<KvTokens>> forks;
  for (int i = 0; i < 3; ++i) {
    forks.push_back(std::make_unique<KvTokens>());
    forks.back()->forkFrom(root);
  }
  const std::vector<const KvTokens*> read = {forks[0].get(), forks[1].get(), forks[2].get()};
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  const auto reader = [&] {
    Query first(read.size(), prefix);
    if (sdpa::attendAll(first.problem, first.sequences, read) != RunStatus::kDone) ++wrong;
    while (!stop.load()) {
      Query query(read.size(), prefix);
      if (sdpa::attendAll(query.problem, query.sequences, read) != RunStatus::kDone || query.out != first.out) ++wrong;
    }
  };
  std::thread readers[2] = {std::thread(reader), std::thread(reader)};
  for (int round = 0; round < 60; ++round) {
    append(root, 1 + round % 5);
    KvTokens child;
    child.forkFrom(root);
    append(child, 70);
    child.truncate(prefix + 1);
    root.truncate(prefix);
    append(child, 3);
  }
  root.release();
  stop = true;
  for (std::thread& thread : readers) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

// Every thread its own caches; what all share are the counters and the pool.
TEST(kvThreads_independentCaches) {
  const sdpa::KvMemoryInfo before = sdpa::kvMemoryInfo();
  std::atomic<int> wrong{0};
  const auto work = [&](int64_t window) {
    for (int round = 0; round < 15; ++round) {
      KvTokens cache;
      if (!cache.reserve(kConfig, {window, 0})) ++wrong;
      const Rows rows(400);
      for (int64_t tokens : {400, 1, 300}) {
        if (!cache.append(rows.source, rows.source, tokens)) ++wrong;
      }
      KvTokens fork;
      fork.forkFrom(cache);
      Query query(2, cache.length());
      query.problem.windowLeft = window ? window - 1 : sdpa::kOpen;
      if (sdpa::attendAll(query.problem, query.sequences, {&cache, &fork}) != RunStatus::kDone) ++wrong;
      if (sdpa::kvMemoryInfo().caches < before.caches + 2) ++wrong;
    }
  };
  std::vector<std::thread> threads;
  for (int64_t window : {0, 256, 0, 512}) threads.emplace_back(work, window);
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK_EQ(sdpa::kvMemoryInfo().caches, before.caches);
  CHECK_EQ(sdpa::kvMemoryInfo().bytes, before.bytes);
}

// A cache may be released by another thread than the one that made it: a worker that ends.
TEST(kvThreads_releasedByAnother) {
  const sdpa::KvMemoryInfo before = sdpa::kvMemoryInfo();
  for (int round = 0; round < 20; ++round) {
    auto cache = std::make_unique<KvTokens>();
    CHECK(cache->reserve(kConfig, {}));
    append(*cache, 200);
    std::thread([owned = std::move(cache)] { owned->release(); }).join();
  }
  CHECK_EQ(sdpa::kvMemoryInfo().bytes, before.bytes);
}

}  // namespace
