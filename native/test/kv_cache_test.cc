#include "../runtime/kv_cache.h"

#include <string.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "guard_page.h"
#include "test.h"

#if defined(__linux__)
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using sdpa::KvCacheConfig;
using sdpa::KvCacheMemory;
using sdpa::kvMemoryBytes;
using sdpa::KvSource;
using sdpa::test::GuardedBuffer;

// The value that stands at [batch, head, token, element] of k (side 0) or v (side 1); exact in float32.
float valueAt(int side, int64_t batch, int64_t head, int64_t token, int64_t element) {
  const int64_t mixed = (((token * 31 + head) * 17 + batch) * 7 + side) * 263 + element;
  return static_cast<float>(mixed % 16777213);
}

enum class Layout { kHeadMajor, kTokenMajor };  // [B, H, T, D], or [B, T, H, D] seen through strides

// Tokens [from, from + tokens) of one side, ending at a guard page.
struct Rows {
  Rows(const KvCacheConfig& config, int side, int64_t from, int64_t tokens, Layout layout)
      : dim(side == 0 ? config.headDim : config.valueDim),
        buffer(static_cast<size_t>(config.batch * config.numKvHeads * tokens * dim)) {
    const int64_t heads = config.numKvHeads;
    const bool headMajor = layout == Layout::kHeadMajor;
    const int64_t headStride = headMajor ? tokens * dim : dim;
    const int64_t rowStride = headMajor ? dim : heads * dim;
    const int64_t batchStride = heads * tokens * dim;
    for (int64_t b = 0; b < config.batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t d = 0; d < dim; ++d)
            buffer[b * batchStride + h * headStride + t * rowStride + d] = valueAt(side, b, h, from + t, d);
    source = {buffer.data(), batchStride * 4, headStride * 4, rowStride * 4};
  }
  int64_t dim;
  GuardedBuffer<float> buffer;
  KvSource source;
};

bool appendTokens(KvCacheMemory& cache, int64_t tokens, Layout layout = Layout::kHeadMajor) {
  const Rows k(cache.config(), 0, cache.length(), tokens, layout);
  const Rows v(cache.config(), 1, cache.length(), tokens, layout);
  return cache.append(k.source, v.source, tokens);
}

// Every cached element, the zero padding, and the alignment of every row.
int64_t countWrong(const KvCacheMemory& cache) {
  const KvCacheConfig& config = cache.config();
  int64_t wrong = 0;
  for (int side = 0; side < 2; ++side) {
    const int64_t dim = side == 0 ? config.headDim : config.valueDim;
    const int64_t strideBytes = side == 0 ? cache.kRowStrideBytes() : cache.vRowStrideBytes();
    for (int64_t b = 0; b < config.batch; ++b)
      for (int64_t h = 0; h < config.numKvHeads; ++h)
        for (int64_t t = 0; t < cache.length(); ++t) {
          const uint8_t* bytes = (side == 0 ? cache.kRow(b, h) : cache.vRow(b, h)) + t * strideBytes;
          const float* row = reinterpret_cast<const float*>(bytes);
          wrong += reinterpret_cast<uintptr_t>(bytes) % 64 != 0;
          for (int64_t d = 0; d < dim; ++d) wrong += row[d] != valueAt(side, b, h, t, d);
          for (int64_t d = dim; d < strideBytes / 4; ++d) wrong += row[d] != 0;
        }
  }
  return wrong;
}

TEST(kvCache_holdsWhatWasAppended) {
  const KvCacheConfig configs[] = {
      {1, 1, 1, 1, 4, 0},   {1, 8, 128, 128, 4, 0}, {2, 3, 80, 96, 4, 0},
      {3, 2, 17, 5, 4, 50}, {1, 4, 256, 64, 4, 45}, {1, 1, 64, 200, 4, 45},
  };
  for (const KvCacheConfig& config : configs) {
    for (Layout layout : {Layout::kHeadMajor, Layout::kTokenMajor}) {
      KvCacheMemory cache;
      CHECK(cache.reserve(config));
      int64_t length = 0;
      for (int64_t tokens : {1, 1, 7, 0, 30, 6}) {
        CHECK(appendTokens(cache, tokens, layout));
        length += tokens;
        CHECK_EQ(cache.length(), length);
      }
      CHECK_EQ(countWrong(cache), 0);
      CHECK_EQ(cache.kRowStrideBytes() % 64, 0);
    }
  }
}

TEST(kvCache_rowsWithoutPaddingKeepTheirWidth) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 1, 128, 16, 4, 10}));
  CHECK_EQ(cache.kRowStrideBytes(), 512);
  CHECK_EQ(cache.vRowStrideBytes(), 64);
  CHECK(cache.reserve({1, 1, 17, 15, 4, 10}));
  CHECK_EQ(cache.kRowStrideBytes(), 128);
  CHECK_EQ(cache.vRowStrideBytes(), 64);
  CHECK(cache.reserve({1, 1, 128, 128, 2, 10}));
  CHECK_EQ(cache.kRowStrideBytes(), 256);
}

TEST(kvCache_growsInPlaceThroughEveryCommitStep) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 2, 64, 128, 4, 0}));
  CHECK(appendTokens(cache, 3));
  const uint8_t* firstKey = cache.kRow(0, 1);
  const uint8_t* firstValue = cache.vRow(0, 1);
  // 40000 tokens are 10 and 20 MiB a region: small steps, collapsed blocks, whole huge pages.
  while (cache.length() < 40000) CHECK(appendTokens(cache, 997));
  CHECK(cache.kRow(0, 1) == firstKey);
  CHECK(cache.vRow(0, 1) == firstValue);
  CHECK_EQ(countWrong(cache), 0);
}

TEST(kvCache_appendedWholeInOneGo) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 2, 64, 64, 4, 0}));
  CHECK(appendTokens(cache, 40000, Layout::kTokenMajor));
  CHECK(appendTokens(cache, 1));
  CHECK_EQ(countWrong(cache), 0);
}

TEST(kvCache_maxLengthIsExact) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 2, 32, 32, 4, 10}));
  CHECK_EQ(cache.capacity(), 10);
  CHECK(appendTokens(cache, 7));
  CHECK(!appendTokens(cache, 4));
  CHECK_EQ(cache.length(), 7);
  CHECK(appendTokens(cache, 3));
  CHECK(!appendTokens(cache, 1));
  CHECK_EQ(cache.length(), 10);
  CHECK_EQ(countWrong(cache), 0);
}

TEST(kvCache_truncateAndContinue) {
  KvCacheMemory cache;
  CHECK(cache.reserve({2, 2, 20, 20, 4, 100}));
  CHECK(appendTokens(cache, 60));
  cache.truncate(1000);
  CHECK_EQ(cache.length(), 60);
  const int64_t bytes = cache.byteLength();
  cache.truncate(13);
  CHECK_EQ(cache.length(), 13);
  CHECK(appendTokens(cache, 40));
  CHECK_EQ(countWrong(cache), 0);
  CHECK_EQ(cache.byteLength(), bytes);
  cache.truncate(0);
  CHECK_EQ(cache.length(), 0);
  CHECK(appendTokens(cache, 100));
  CHECK_EQ(countWrong(cache), 0);
}

TEST(kvCache_smallCachesStaySmall) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 8, 128, 128, 4, 0}));
  CHECK_EQ(cache.byteLength(), 0);
  CHECK(cache.capacity() >= 1024);
  CHECK(appendTokens(cache, 16));
  CHECK_EQ(cache.byteLength(), 16 * 65536);
  CHECK(appendTokens(cache, 4080));
  const int64_t needed = int64_t{4096} * 512 * 16;
  CHECK(cache.byteLength() >= needed);
  CHECK(cache.byteLength() <= needed + 16 * 65536);
}

TEST(kvCache_headsLieAtOneStrideAndValuesOnOtherCacheLines) {
  KvCacheMemory cache;
  const KvCacheConfig config{3, 4, 128, 64, 4, 0};
  CHECK(cache.reserve(config));
  const int64_t kHeadStride = cache.kRow(0, 1) - cache.kRow(0, 0);
  const int64_t vHeadStride = cache.vRow(0, 1) - cache.vRow(0, 0);
  for (int64_t b = 0; b < config.batch; ++b) {
    for (int64_t h = 0; h < config.numKvHeads; ++h) {
      CHECK_EQ(cache.kRow(b, h) - cache.kRow(0, 0), (b * config.numKvHeads + h) * kHeadStride);
      CHECK_EQ(cache.vRow(b, h) - cache.vRow(0, 0), (b * config.numKvHeads + h) * vHeadStride);
      const int64_t apart = cache.vRow(b, h) - cache.kRow(b, h);
      CHECK_EQ(apart % 128, 64);   // an odd number of cache lines
      CHECK(apart % 4096 >= 512);  // the first key's row is past
    }
  }
}

TEST(kvCache_countersFollow) {
  const sdpa::KvMemoryBytes before = kvMemoryBytes();
  {
    KvCacheMemory first;
    KvCacheMemory second;
    CHECK(first.reserve({1, 2, 64, 64, 4, 0}));
    CHECK(second.reserve({1, 1, 64, 64, 4, 100}));
    CHECK(appendTokens(first, 100));
    CHECK(appendTokens(second, 100));
    const sdpa::KvMemoryBytes now = kvMemoryBytes();
    CHECK_EQ(now.now - before.now, first.byteLength() + second.byteLength());
    CHECK(now.peak >= now.now);
    first.release();
    CHECK_EQ(first.length() + first.capacity() + first.byteLength(), 0);
    CHECK(!first.append({}, {}, 1));
    first.release();
    CHECK_EQ(kvMemoryBytes().now - before.now, second.byteLength());
  }
  CHECK_EQ(kvMemoryBytes().now, before.now);
  CHECK(kvMemoryBytes().peak > before.now);
}

TEST(kvCache_absurdExtentsAreRefused) {
  KvCacheMemory cache;
  const int64_t huge = int64_t{1} << 53;
  CHECK(!cache.reserve({huge, huge, huge, huge, 4, huge}));
  CHECK(!cache.reserve({1, 1, 64, 64, 4, huge}));
  CHECK(!cache.reserve({huge, 1, 64, 64, 4, 0}));
  CHECK(!cache.reserve({1, 1, huge, 64, 4, 0}));
  CHECK_EQ(cache.capacity(), 0);
  CHECK(cache.reserve({1, 1, 64, 64, 4, 1}));
  CHECK(appendTokens(cache, 1));
}

TEST(kvCache_rowsCanBeReadWhileOthersAreAppended) {
  KvCacheMemory cache;
  CHECK(cache.reserve({1, 1, 64, 64, 4, 0}));
  CHECK(appendTokens(cache, 100));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread reader([&] {
    while (!stop.load()) {
      for (int64_t token = 0; token < 100; ++token) {
        const float* row = reinterpret_cast<const float*>(cache.kRow(0, 0) + token * cache.kRowStrideBytes());
        wrong += row[5] != valueAt(0, 0, 0, token, 5);
      }
    }
  });
  while (cache.length() < 40000) appendTokens(cache, 333);
  stop.store(true);
  reader.join();
  CHECK_EQ(wrong.load(), 0);
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// In a child process, whose address space is limited to a little more than it has: what a cache can be then.
TEST(kvCache_limitedAddressSpaceShrinksTheReservation) {
  const pid_t child = fork();
  if (child == 0) {
    long pages = 0;
    FILE* statm = fopen("/proc/self/statm", "r");
    if (statm == nullptr || fscanf(statm, "%ld", &pages) != 1) _exit(0);
    const rlim_t limit = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{1} << 30);
    const rlimit addressSpace{limit, limit};
    if (setrlimit(RLIMIT_AS, &addressSpace) != 0) _exit(0);
    sdpa::AddressRange beyond;
    if (beyond.reserve(size_t{1} << 32)) _exit(0);  // an emulator that ignores the limit
    KvCacheMemory caches[4];
    for (KvCacheMemory& cache : caches) {
      if (!cache.reserve({1, 2, 64, 64, 4, 0})) _exit(1);
      if (cache.capacity() < 1000 || cache.capacity() > 1000000) _exit(2);
      if (!appendTokens(cache, 300) || countWrong(cache) != 0) _exit(3);
    }
    KvCacheMemory tooLong;
    if (tooLong.reserve({1, 2, 64, 64, 4, int64_t{1} << 22})) _exit(4);
    _exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}
#endif

}  // namespace
