// A cache's list of segments against a plain list of tokens: forks, truncation, windows, kept branches.
#include "../runtime/kv_tokens.h"

#include <memory>
#include <vector>

#include "attention_case.h"
#include "test.h"

namespace {

using sdpa::KvCacheConfig;
using sdpa::kvMemoryInfo;
using sdpa::KvSource;
using sdpa::KvTokens;
using sdpa::KvWindow;
using sdpa::test::Random;

constexpr KvCacheConfig kConfig{2, 2, 3, 5, 4, 0};

// What a cache should hold: the number that each token was given when it was appended.
struct Model {
  std::vector<int> tokens;
  int64_t lastAppend = 0;  // tokens of it that are still there
};

float valueAt(int side, int64_t batch, int64_t head, int token, int64_t element) {
  return static_cast<float>((((token * 2 + side) * 2 + batch) * 2 + head) * 8 + element);
}

struct Rows {
  std::vector<float> k, v;
  KvSource kSource, vSource;

  explicit Rows(const std::vector<int>& tokens) {
    const auto fill = [&](int side, int64_t dim, std::vector<float>& rows) {
      for (int64_t b = 0; b < kConfig.batch; ++b)
        for (int64_t h = 0; h < kConfig.numKvHeads; ++h)
          for (int token : tokens)
            for (int64_t d = 0; d < dim; ++d) rows.push_back(valueAt(side, b, h, token, d));
      const int64_t head = static_cast<int64_t>(tokens.size()) * dim * 4;
      return KvSource{rows.data(), head * kConfig.numKvHeads, head, dim * 4};
    };
    kSource = fill(0, kConfig.headDim, k);
    vSource = fill(1, kConfig.valueDim, v);
  }
};

bool append(KvTokens& cache, Model& model, int64_t count, int& nextToken) {
  std::vector<int> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(nextToken++);
  const Rows rows(tokens);
  if (!cache.append(rows.kSource, rows.vSource, count)) return false;
  model.tokens.insert(model.tokens.end(), tokens.begin(), tokens.end());
  model.lastAppend = count;
  return true;
}

// Wrong rows as the kernels find them: through the runs.
int64_t countWrong(const KvTokens& cache, const Model& model) {
  int64_t wrong = cache.length() != static_cast<int64_t>(model.tokens.size());
  const auto isKept = [&](int64_t i) { return i < cache.window().sinkTokens || i >= cache.keptBegin(); };
  for (int64_t b = 0; b < kConfig.batch; ++b) {
    std::vector<sdpa::KeyRun> runs;
    cache.appendRuns(b, runs);
    int64_t seen = 0, last = 0;
    for (const sdpa::KeyRun& run : runs) {
      wrong += run.begin % sdpa::kRunAlign != 0 || run.begin < last || run.end < run.begin;
      last = run.end;
      for (int64_t i = run.begin; i < run.end; ++i) {
        seen += isKept(i);
        for (int64_t h = 0; h < kConfig.numKvHeads; ++h) {
          const float* k = static_cast<const float*>(run.k) + h * run.kHeadStride + (i - run.begin) * cache.kRowStrideBytes() / 4;
          const float* v = static_cast<const float*>(run.v) + h * run.vHeadStride + (i - run.begin) * cache.vRowStrideBytes() / 4;
          const int token = model.tokens[static_cast<size_t>(i)];
          for (int64_t d = 0; d < kConfig.headDim; ++d) wrong += k[d] != valueAt(0, b, h, token, d);
          for (int64_t d = 0; d < kConfig.valueDim; ++d) wrong += v[d] != valueAt(1, b, h, token, d);
        }
      }
    }
    int64_t expected = 0;
    for (int64_t i = 0; i < cache.length(); ++i) expected += isKept(i);
    wrong += seen != expected;
  }
  return wrong;
}

void keepSome(KvTokens& cache, Model& model, Random& random) {
  if (model.lastAppend == 0) return;
  const int64_t begin = cache.length() - model.lastAppend;
  std::vector<int64_t> indices;
  std::vector<int> kept(model.tokens.begin(), model.tokens.begin() + begin);
  for (int64_t i = model.lastAppend; i-- > 0;) {
    if (random.below(3) == 0) continue;
    indices.push_back(i);
    kept.push_back(model.tokens[static_cast<size_t>(begin + i)]);
  }
  CHECK(cache.keep(begin, indices.data(), static_cast<int64_t>(indices.size())));
  model.tokens = kept;
  model.lastAppend = 0;
}

// Random operations on a family of forks, each held against its model after each.
void runFamily(uint64_t seed, KvWindow window) {
  Random random(seed);
  int nextToken = 0;
  std::vector<std::unique_ptr<KvTokens>> caches;
  std::vector<Model> models;
  caches.push_back(std::make_unique<KvTokens>());
  models.emplace_back();
  CHECK(caches[0]->reserve(kConfig, window));
  for (int step = 0; step < 60; ++step) {
    const size_t i = static_cast<size_t>(random.below(static_cast<int64_t>(caches.size())));
    switch (random.below(6)) {
      case 0:
      case 1:
        CHECK(append(*caches[i], models[i], random.below(step % 7 == 0 ? 400 : 9), nextToken));
        break;
      case 2: {
        // With a window, only what was not there when the oldest tokens went can be forgotten.
        const int64_t most = window.tokens ? models[i].lastAppend : caches[i]->length();
        const int64_t length = caches[i]->length() - random.below(most + 1);
        caches[i]->truncate(length);
        models[i].tokens.resize(static_cast<size_t>(length));
        models[i].lastAppend = 0;
        break;
      }
      case 3:
        keepSome(*caches[i], models[i], random);
        break;
      case 4:
        if (caches.size() >= 5) break;
        caches.push_back(std::make_unique<KvTokens>());
        caches.back()->forkFrom(*caches[i]);
        models.push_back(models[i]);
        break;
      default:
        if (caches.size() < 2) break;
        caches.erase(caches.begin() + static_cast<std::ptrdiff_t>(i));
        models.erase(models.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (size_t j = 0; j < caches.size(); ++j) CHECK_EQ(countWrong(*caches[j], models[j]), 0);
  }
}

TEST(kvTokens_forksAreIndependent) {
  const sdpa::KvMemoryInfo before = kvMemoryInfo();
  for (uint64_t seed = 1; seed <= 20; ++seed) runFamily(seed, {});
  CHECK_EQ(kvMemoryInfo().caches, before.caches);
  CHECK_EQ(kvMemoryInfo().bytes, before.bytes);
}

TEST(kvTokens_windowsKeepWhatTheyShould) {
  const sdpa::KvMemoryInfo before = kvMemoryInfo();
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    runFamily(seed, {100, 0});
    runFamily(seed, {300, 5});
    runFamily(seed, {1000, 100});
  }
  CHECK_EQ(kvMemoryInfo().bytes, before.bytes);
}

TEST(kvTokens_aWindowNeedsConstantMemory) {
  KvTokens cache;
  Model model;
  int nextToken = 0;
  CHECK(cache.reserve(kConfig, {1000, 10}));
  for (int i = 0; i < 300; ++i) CHECK(append(cache, model, 10, nextToken));
  const int64_t bytes = cache.byteLength();
  for (int i = 0; i < 3000; ++i) CHECK(append(cache, model, 10, nextToken));
  CHECK_EQ(cache.byteLength(), bytes);
  CHECK(cache.keptBegin() <= cache.length() - 1000);
  CHECK(cache.keptBegin() >= cache.length() - 1000 - 2 * 256);
  CHECK_EQ(countWrong(cache, model), 0);
}

TEST(kvTokens_whatIsTakenBackLeavesTheWindowWhole) {
  int next = 0;
  for (int64_t count : {1, 3, 64, 300, 700}) {
    KvTokens cache;
    Model model;
    cache.reserve(kConfig, {256, 4});
    for (int round = 0; round < 40; ++round) {
      CHECK(append(cache, model, count, next));
      const int64_t keptBegin = cache.keptBegin(), length = cache.length();
      const Rows rows(std::vector<int>(900, 7));
      CHECK(cache.appendRevocably(rows.kSource, rows.vSource, 1 + round * 20));
      cache.truncate(length);
      CHECK_EQ(cache.keptBegin(), keptBegin);
      CHECK_EQ(countWrong(cache, model), int64_t{0});
    }
  }
}

TEST(kvTokens_aForkCostsOnlyWhatDiffers) {
  KvTokens cache;
  Model model;
  int nextToken = 0;
  CHECK(cache.reserve(kConfig, {}));
  CHECK(append(cache, model, 50000, nextToken));
  const int64_t before = kvMemoryInfo().bytes;
  KvTokens fork;
  fork.forkFrom(cache);
  CHECK_EQ(kvMemoryInfo().bytes, before);
  Model forkModel = model;
  CHECK(append(cache, model, 3, nextToken));
  CHECK(append(fork, forkModel, 3, nextToken));
  CHECK(kvMemoryInfo().bytes - before <= 8 * 2 * (64 << 10));
  CHECK_EQ(countWrong(cache, model) + countWrong(fork, forkModel), 0);
}

}  // namespace
