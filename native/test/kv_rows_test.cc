// Rows of a cache out to a file's order and into a new cache: every window, gap, fork and cut into pieces.
#include "../runtime/kv_rows.h"

#include <string.h>

#include <memory>
#include <vector>

#include "attention_case.h"
#include "test.h"

namespace {

using sdpa::KvCacheConfig;
using sdpa::KvSource;
using sdpa::KvTokens;
using sdpa::KvWindow;
using sdpa::test::Random;

constexpr KvCacheConfig kConfig{2, 2, 3, 5, 4, 0};
constexpr int64_t kHeads = 4;

// Element of a row that tells its token, head and side.
float valueAt(bool values, int64_t head, int64_t token) {
  return static_cast<float>((token * 2 + (values ? 1 : 0)) * kHeads + head);
}

void append(KvTokens& cache, int64_t tokens) {
  std::vector<float> k, v;
  const auto fill = [&](bool values, int64_t dim, std::vector<float>& rows) {
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t d = 0; d < dim; ++d) rows.push_back(valueAt(values, head, cache.length() + t));
      }
    }
    return KvSource{rows.data(), tokens * dim * 4 * kConfig.numKvHeads, tokens * dim * 4, dim * 4};
  };
  const KvSource kSource = fill(false, kConfig.headDim, k), vSource = fill(true, kConfig.valueDim, v);
  CHECK(cache.append(kSource, vSource, tokens));
}

// All rows, copied in pieces of random length; the buffer ends with them.
std::vector<uint8_t> rowsOf(const KvTokens& cache, bool values, Random& random) {
  const int64_t rows = fileRows(cache), bytes = fileRowBytes(cache, values);
  std::vector<uint8_t> all(static_cast<size_t>(rows * bytes));
  for (int64_t first = 0; first < rows;) {
    const int64_t count = std::min(rows - first, 1 + random.below(200));
    std::unique_ptr<uint8_t[]> piece(new uint8_t[static_cast<size_t>(count * bytes)]);
    copyRowsOut(cache, values, first, count, piece.get());
    memcpy(all.data() + first * bytes, piece.get(), static_cast<size_t>(count * bytes));
    first += count;
  }
  return all;
}

void fillRows(KvTokens& cache, bool values, const std::vector<uint8_t>& all, Random& random) {
  const int64_t rows = fileRows(cache), bytes = fileRowBytes(cache, values);
  CHECK_EQ(rows * bytes, static_cast<int64_t>(all.size()));
  for (int64_t first = 0; first < rows;) {
    const int64_t count = std::min(rows - first, 1 + random.below(200));
    const uint8_t* from = all.data() + first * bytes;
    const std::vector<uint8_t> piece(from, from + count * bytes);
    copyRowsIn(cache, values, first, count, piece.data());
    first += count;
  }
}

// Wrong elements among the kept tokens, as the kernels find them: through the runs.
int64_t countWrong(const KvTokens& cache) {
  int64_t wrong = 0, seen = 0;
  for (int64_t b = 0; b < kConfig.batch; ++b) {
    std::vector<sdpa::KeyRun> runs;
    cache.appendRuns(b, runs);
    for (const sdpa::KeyRun& run : runs) {
      wrong += run.begin % sdpa::kRunAlign != 0;
      for (int64_t token = run.begin; token < run.end; ++token) {
        if (token >= cache.window().sinkTokens && token < cache.keptBegin()) continue;
        ++seen;
        for (int64_t h = 0; h < kConfig.numKvHeads; ++h) {
          const int64_t row = token - run.begin, head = b * kConfig.numKvHeads + h;
          const float* k = static_cast<const float*>(run.k) + h * run.kHeadStride + row * cache.kRowStrideBytes() / 4;
          const float* v = static_cast<const float*>(run.v) + h * run.vHeadStride + row * cache.vRowStrideBytes() / 4;
          for (int64_t d = 0; d < kConfig.headDim; ++d) wrong += k[d] != valueAt(false, head, token);
          for (int64_t d = 0; d < kConfig.valueDim; ++d) wrong += v[d] != valueAt(true, head, token);
        }
      }
    }
  }
  return wrong + (seen * kConfig.numKvHeads != fileRows(cache));
}

// What was restored must be the cache that was, and go on as one.
void checkRestored(const KvTokens& cache, Random& random) {
  KvTokens restored;
  CHECK(restored.reserve(kConfig, cache.window()));
  CHECK(restored.restore(cache.keptBegin(), cache.length()));
  CHECK_EQ(restored.length(), cache.length());
  CHECK_EQ(restored.keptBegin(), cache.keptBegin());
  for (bool values : {false, true}) fillRows(restored, values, rowsOf(cache, values, random), random);
  CHECK_EQ(countWrong(restored), 0);
  for (bool values : {false, true}) CHECK(rowsOf(restored, values, random) == rowsOf(cache, values, random));
  KvTokens fork;
  fork.forkFrom(restored);
  append(restored, 70);
  append(fork, 200);
  restored.truncate(std::max(restored.keptBegin(), restored.length() - random.below(90)));
  append(restored, 1 + random.below(500));
  CHECK_EQ(countWrong(restored), 0);
  CHECK_EQ(countWrong(fork), 0);
}

TEST(kvRows_restoredCachesAreThoseThatWere) {
  Random random(11);
  for (const KvWindow window :
       {KvWindow{0, 0}, KvWindow{1, 0}, KvWindow{100, 4}, KvWindow{300, 64}, KvWindow{90, 130}, KvWindow{4000, 1}}) {
    KvTokens cache;
    CHECK(cache.reserve(kConfig, window));
    checkRestored(cache, random);
    for (int round = 0; round < 12; ++round) {
      append(cache, random.below(3) == 0 ? random.below(700) : 1 + random.below(9));
      if (random.below(4) == 0) cache.truncate(std::max(cache.keptBegin(), cache.length() - random.below(50)));
      checkRestored(cache, random);
    }
  }
}

TEST(kvRows_aGapMayBeginAnywhere) {
  Random random(12);
  for (int64_t keptBegin : {5, 63, 64, 65, 128, 129, 192, 1000}) {
    for (int64_t length : {keptBegin, keptBegin + 1, keptBegin + 700}) {
      KvTokens cache;
      CHECK(cache.reserve(kConfig, {100, 4}));
      CHECK(cache.restore(keptBegin, length));
      CHECK_EQ(fileRows(cache), kHeads * (4 + length - keptBegin));
      for (bool values : {false, true}) {
        const int64_t dim = values ? kConfig.valueDim : kConfig.headDim, kept = 4 + length - keptBegin;
        std::vector<float> rows;
        for (int64_t i = 0; i < fileRows(cache); ++i) {
          const int64_t row = i % kept, token = row < 4 ? row : row - 4 + keptBegin;
          for (int64_t d = 0; d < dim; ++d) rows.push_back(valueAt(values, i / kept, token));
        }
        std::vector<uint8_t> bytes(rows.size() * 4);
        memcpy(bytes.data(), rows.data(), bytes.size());
        fillRows(cache, values, bytes, random);
      }
      CHECK_EQ(countWrong(cache), 0);
      append(cache, 300);
      CHECK_EQ(countWrong(cache), 0);
    }
  }
}

TEST(kvRows_refusesWhatIsNoState) {
  KvTokens cache;
  CHECK(!cache.restore(0, 1));  // not reserved
  KvCacheConfig bounded = kConfig;
  bounded.maxLength = 10;
  for (const auto& state : std::vector<std::pair<int64_t, int64_t>>{{0, 11}, {-1, 5}, {6, 5}}) {
    CHECK(cache.reserve(bounded, {4, 1}));
    CHECK(!cache.restore(state.first, state.second));
  }
  CHECK(cache.reserve(bounded, {4, 1}));
  CHECK(cache.restore(0, 3));
  CHECK(!cache.restore(0, 3));  // no longer empty
}

}  // namespace
