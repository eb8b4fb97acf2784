// A program of cache operations against a plain list of tokens: appends with layouts that may lie, truncation, forks, kept
// branches, windows, attention, and what a file brings: restore and rows of any bytes.
#include <algorithm>
#include <deque>
#include <limits>
#include <vector>

#include "binding/repeated_step.h"
#include "fuzz/input.h"
#include "runtime/kv_rows.h"
#include "runtime/step_all.h"

namespace {

using namespace sdpa;
using fuzz::Input;
using fuzz::Memory;

#define FUZZ_CHECK(condition) \
  if (!(condition)) __builtin_trap()

using Bytes = std::vector<uint8_t>;

// A row that an append brings, and the same as it is stored.
struct Row {
  Bytes given, stored;
};

Row makeRow(const KvCacheConfig& config, int64_t dim, uint32_t seed) {
  Row row{Bytes(static_cast<size_t>(dim * config.elementBytes)), {}};
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (size_t i = 0; i < row.given.size(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint8_t bits = static_cast<uint8_t>(state >> 56);
    row.given[i] = (i + 1) % static_cast<size_t>(config.elementBytes) == 0 ? static_cast<uint8_t>((bits & 0x81) | 0x3e) : bits;
  }
  row.stored = row.given;
  if (config.isInt8) {
    row.stored.assign(static_cast<size_t>(config.rowBytes(dim)), 0);
    std::vector<float> numbers(static_cast<size_t>(dim));
    memcpy(numbers.data(), row.given.data(), row.given.size());
    quantiseRow(numbers.data(), dim, reinterpret_cast<int8_t*>(row.stored.data()));
  }
  return row;
}

struct Token {
  std::vector<Bytes> keys, values;  // of each (batch, head), as stored
};

// What a cache should hold.
struct Model {
  KvTokens cache;
  std::vector<std::shared_ptr<const Token>> tokens;
};

class Program {
 public:
  explicit Program(Input& input) : input_(input) {
    static const int64_t dims[] = {4, 1, 3, 16, 17, 33, 64};
    config_.batch = 1 + input.below(2);
    config_.numKvHeads = 1 + input.below(2);
    config_.headDim = dims[input.below(7)];
    config_.valueDim = dims[input.below(7)];
    dtype_ = static_cast<DType>(input.below(4));
    config_.isInt8 = dtype_ == kInt8;
    config_.elementBytes = bytesOf(dtype_);
    config_.maxLength = input.one(4) ? 1 + input.below(1000) : 0;
    if (input.one(2)) window_.tokens = 1 + input.below(600);
    if (window_.tokens > 0 && input.one(2)) window_.sinkTokens = input.below(100);
  }

  void run() {
    models_.emplace_back();
    if (!models_[0].cache.reserve(config_, window_)) return;
    for (int steps = 0; steps < 64 && !input_.isEmpty(); ++steps) {
      step(models_[static_cast<size_t>(input_.below(static_cast<int64_t>(models_.size())))]);
    }
    for (Model& model : models_) check(model);
    if (config_.batch == 1) attend();
  }

 private:
  void step(Model& model) {
    switch (input_.below(9)) {
      case 0:
      case 1:
      case 2: return append(model, input_.one(8) ? input_.below(1000) : input_.below(70));
      case 3: return truncate(model);
      case 4: return fork(model);
      case 5: return keep(model);
      case 6: return throughAFile(model);
      case 7: return hostileRows(model);
      default: return check(model);
    }
  }

  int64_t heads() const { return config_.batch * config_.numKvHeads; }

  void append(Model& model, int64_t count) {
    std::vector<std::shared_ptr<const Token>> made;
    const int64_t kBytes = config_.headDim * config_.elementBytes, vBytes = config_.valueDim * config_.elementBytes;
    Memory k(static_cast<size_t>(heads() * count * kBytes), input_.one(2), 0), v(static_cast<size_t>(heads() * count * vBytes), input_.one(2), 1);
    for (int64_t t = 0; t < count; ++t) {
      auto token = std::make_shared<Token>();
      const uint32_t seed = nextSeed_++;
      for (int64_t h = 0; h < heads(); ++h) {
        const Row key = makeRow(config_, config_.headDim, seed * 8 + static_cast<uint32_t>(h)),
                  value = makeRow(config_, config_.valueDim, ~(seed * 8 + static_cast<uint32_t>(h)));
        memcpy(k.data() + (h * count + t) * kBytes, key.given.data(), key.given.size());
        memcpy(v.data() + (h * count + t) * vBytes, value.given.data(), value.given.size());
        token->keys.push_back(key.stored);
        token->values.push_back(value.stored);
      }
      made.push_back(std::move(token));
    }
    const double strideK = static_cast<double>(config_.headDim), strideV = static_cast<double>(config_.valueDim), n = static_cast<double>(count);
    double numbers[9] = {n, 0, n * strideK * static_cast<double>(config_.numKvHeads), n * strideK, strideK,
                         0, n * strideV * static_cast<double>(config_.numKvHeads), n * strideV, strideV};
    const bool lies = input_.one(4);
    if (lies) numbers[input_.below(9)] = input_.one(2) ? numbers[input_.below(9)] + static_cast<int8_t>(input_.byte()) : input_.number();
    TokenLayout layout{};
    KvSource kSource, vSource;
    if (!layout.read(spanOf(numbers, 9, 8))) return;
    if (layout.tokens > 0 &&
        (!layout.k.find(spanOf(k.data(), static_cast<int64_t>(k.size()) / config_.elementBytes, config_.elementBytes), config_, layout.tokens, config_.headDim, &kSource) ||
         !layout.v.find(spanOf(v.data(), static_cast<int64_t>(v.size()) / config_.elementBytes, config_.elementBytes), config_, layout.tokens, config_.valueDim, &vSource))) {
      return;
    }
    if (layout.tokens > 2000 || model.tokens.size() > 4000) return;
    const int64_t before = model.cache.length();
    if (config_.isInt8 && layout.tokens > 0 &&
        !(isQuantisable(config_, kSource, layout.tokens, config_.headDim) && isQuantisable(config_, vSource, layout.tokens, config_.valueDim))) {
      return;
    }
    const bool fits = layout.tokens <= model.cache.capacity() - before;
    const bool done = model.cache.append(kSource, vSource, layout.tokens);
    FUZZ_CHECK(fits || !done);
    FUZZ_CHECK(model.cache.length() == before + (done ? layout.tokens : 0));
    if (!lies && done) {
      model.tokens.insert(model.tokens.end(), made.begin(), made.end());
    } else if (done) {  // other rows than were meant, but rows of k and v
      model.cache.truncate(before);
    }
  }

  static Span spanOf(void* data, int64_t length, int64_t elementBytes) {
    Span span;
    span.data = data;
    span.length = length;
    span.elementBytes = elementBytes;
    span.given = true;
    return span;
  }

  // As a KVCache lets it be: not into what has left the window.
  void truncate(Model& model) {
    const int64_t length = model.cache.length(), kept = model.cache.keptBegin();
    if (length == kept) return;
    const int64_t to = kept + input_.below(length - kept) + 1;
    model.cache.truncate(to);
    model.tokens.resize(static_cast<size_t>(to));
  }

  void fork(Model& model) {
    if (models_.size() >= 4) {
      models_.back().cache.release();
      models_.pop_back();
      return;
    }
    models_.emplace_back();
    models_.back().cache.forkFrom(model.cache);
    models_.back().tokens = model.tokens;
  }

  void keep(Model& model) {
    const int64_t newest = std::min<int64_t>(model.cache.length() - model.cache.keptBegin(), 1 + input_.below(60));
    if (newest <= 0) return;
    const int64_t begin = model.cache.length() - newest;
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < newest; ++i)
      if (input_.one(2)) indices.push_back(input_.one(4) ? input_.below(newest) : i);
    if (static_cast<int64_t>(indices.size()) > newest || !model.cache.keep(begin, indices.data(), static_cast<int64_t>(indices.size()))) return;
    std::vector<std::shared_ptr<const Token>> kept(model.tokens.begin(), model.tokens.begin() + begin);
    for (int64_t i : indices) kept.push_back(model.tokens[static_cast<size_t>(begin + i)]);
    model.tokens = kept;
  }

  // Out in pieces, and into a cache of its own in pieces.
  void throughAFile(Model& model) {
    const int64_t rows = fileRows(model.cache);
    models_.emplace_back();
    Model& restored = models_.back();
    bool restoredAll = restored.cache.reserve(config_, window_) && restored.cache.restore(model.cache.keptBegin(), model.cache.length());
    FUZZ_CHECK(!restoredAll || fileRows(restored.cache) == rows);
    const int64_t most = 1 + input_.below(200);
    for (int values = 0; restoredAll && values < 2; ++values) {
      const int64_t bytes = fileRowBytes(model.cache, values == 1);
      for (int64_t first = 0; first < rows; first += most) {
        const int64_t count = std::min(most, rows - first);
        Memory piece(static_cast<size_t>(count * bytes), input_.one(2), 2);
        copyRowsOut(model.cache, values == 1, first, count, piece.data());
        copyRowsIn(restored.cache, values == 1, first, count, piece.data());
      }
    }
    restored.tokens = model.tokens;
    if (restoredAll) check(restored);
    if (!restoredAll || models_.size() > 4) {
      restored.cache.release();
      models_.pop_back();
    }
  }

  // What a crafted file asks for.
  void hostileRows(Model&) {
    KvTokens cache;
    KvCacheConfig config = config_;
    KvWindow window = window_;
    if (input_.one(4)) {
      int64_t* fields[] = {&config.batch, &config.numKvHeads, &config.headDim, &config.valueDim, &config.maxLength, &window.tokens, &window.sinkTokens};
      int64_t& field = *fields[input_.below(7)];
      field = std::max<int64_t>(&field >= &config.maxLength || fields[4] == &field ? 0 : 1, wholeOf(input_.number(), kOpen));
    }
    config.batch = std::max<int64_t>(config.batch, 1);
    config.numKvHeads = std::max<int64_t>(config.numKvHeads, 1);
    config.headDim = std::max<int64_t>(config.headDim, 1);
    config.valueDim = std::max<int64_t>(config.valueDim, 1);
    window.tokens = std::max<int64_t>(window.tokens, 0);
    window.sinkTokens = std::max<int64_t>(window.sinkTokens, 0);
    if (!cache.reserve(config, window)) return;
    const int64_t keptBegin = input_.one(2) ? input_.below(3000) : wholeOf(input_.number(), kOpen);
    const int64_t length = input_.one(2) ? keptBegin + input_.below(2000) : wholeOf(input_.number(), kOpen);
    const bool small = length - std::max<int64_t>(keptBegin, 0) < 5000 && window.sinkTokens < 5000 && config.batch * config.numKvHeads < 8 &&
                       config.headDim < 200 && config.valueDim < 200;
    if (!small || !cache.restore(keptBegin, length)) return;
    FUZZ_CHECK(cache.length() == length && cache.keptBegin() == keptBegin);
    const int64_t rows = fileRows(cache);
    for (int values = 0; values < 2; ++values) {
      const int64_t bytes = fileRowBytes(cache, values == 1), first = rows == 0 ? 0 : input_.below(rows), count = rows - first;
      if (count == 0) continue;
      Memory in(static_cast<size_t>(count * bytes), input_.one(2), 3), out(static_cast<size_t>(count * bytes), input_.one(2), 4);
      in.fill(input_.byte(), true, 1);
      copyRowsIn(cache, values == 1, first, count, in.data());
      copyRowsOut(cache, values == 1, first, count, out.data());
      FUZZ_CHECK(memcmp(in.data(), out.data(), in.size()) == 0);
    }
    if (cache.length() > cache.keptBegin()) cache.truncate(cache.keptBegin() + input_.below(cache.length() - cache.keptBegin()) + 1);
  }

  // Each kept row, as a file would have it.
  void check(Model& model) {
    FUZZ_CHECK(model.cache.length() == static_cast<int64_t>(model.tokens.size()));
    const int64_t sinks = std::min(window_.sinkTokens, model.cache.keptBegin());
    Bytes row;
    const auto checkToken = [&](int64_t token) {
      for (int values = 0; values < 2; ++values) {
        for (int64_t h = 0; h < heads(); ++h) {
          const Token& expected = *model.tokens[static_cast<size_t>(token)];
          const Bytes& stored = (values ? expected.values : expected.keys)[static_cast<size_t>(h)];
          row.assign(stored.size(), 0);
          model.cache.copyRows(values == 1, h / config_.numKvHeads, h % config_.numKvHeads, token, token + 1, row.data());
          FUZZ_CHECK(row == stored);
        }
      }
    };
    for (int64_t token = 0; token < sinks; ++token) checkToken(token);
    for (int64_t token = model.cache.keptBegin(); token < model.cache.length(); ++token) checkToken(token);
    if (window_.tokens == 0) FUZZ_CHECK(model.cache.keptBegin() == 0);
  }

  // Over all caches at once; every row that sees a key is a mean of values, all of them finite.
  void attend() {
    std::vector<const KvTokens*> caches;
    std::vector<Sequence> sequences;
    const int64_t rows = 1 + input_.below(3), group = 1 + input_.below(3), qHeads = config_.numKvHeads * group;
    const DType qDType = config_.isInt8 ? kFloat32 : dtype_;
    for (Model& model : models_) {
      Sequence s{};
      s.qLen = rows;
      s.kvLen = model.cache.length();
      s.queryOffset = s.kvLen - rows;
      s.qOffset = static_cast<int64_t>(caches.size()) * qHeads * rows * config_.headDim;
      s.outOffset = static_cast<int64_t>(caches.size()) * qHeads * rows * config_.valueDim;
      caches.push_back(&model.cache);
      sequences.push_back(s);
    }
    const int64_t all = static_cast<int64_t>(caches.size()) * qHeads * rows;
    Memory q(static_cast<size_t>(all * config_.headDim * bytesOf(qDType)), input_.one(2), 5);
    Memory out(static_cast<size_t>(all * config_.valueDim * bytesOf(qDType)), input_.one(2), 6);
    q.fill(1, false, bytesOf(qDType));
    Problem p{};
    p.numSequences = static_cast<int64_t>(caches.size());
    p.numHeads = qHeads;
    p.numKvHeads = config_.numKvHeads;
    p.groupSize = group;
    p.headDim = config_.headDim;
    p.valueDim = config_.valueDim;
    p.scale = 0.125f;
    p.windowLeft = window_.tokens > 0 ? window_.tokens - 1 : kOpen;
    p.windowRight = 0;
    p.sinkTokens = window_.sinkTokens;
    p.qDType = qDType;
    p.kvDType = dtype_;
    p.q = q.data();
    p.out = out.data();
    p.qRowStride = config_.headDim;
    p.qHeadStride = rows * config_.headDim;
    p.outRowStride = config_.valueDim;
    p.outHeadStride = rows * config_.valueDim;
    p.sequences = sequences.data();
    FUZZ_CHECK(attendAll(p, sequences, caches) == RunStatus::kDone);
    if (qDType != kFloat32) return;
    const float* results = reinterpret_cast<const float*>(out.data());
    for (size_t i = 0; i < out.size() / 4; ++i) FUZZ_CHECK(results[i] >= -1e4f && results[i] <= 1e4f);
  }

  Input& input_;
  KvCacheConfig config_;
  KvWindow window_;
  DType dtype_ = kFloat32;
  std::deque<Model> models_;
  uint32_t nextSeed_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  fuzz::selectIsa(input);
  Program(input).run();
  FUZZ_CHECK(kvMemoryInfo().caches == 0 && kvMemoryInfo().bytes == 0);
  return 0;
}
