#include "binding/kv_cache_binding.h"

#include <string.h>

#include <utility>
#include <vector>

#include "binding/async_call.h"
#include "binding/entry.h"

namespace sdpa {
namespace {

// As tokens_.copyRows; rows of int8 as float32.
void copyHead(const KvTokens& tokens, bool values, int64_t batch, int64_t head, int64_t begin, int64_t end, uint8_t* out) {
  const KvCacheConfig& config = tokens.config();
  if (!config.isInt8) return tokens.copyRows(values, batch, head, begin, end, out);
  const int64_t dim = values ? config.valueDim : config.headDim;
  std::vector<uint8_t> row(static_cast<size_t>(config.rowBytes(dim)));
  float* numbers = reinterpret_cast<float*>(out);
  for (int64_t token = begin; token < end; ++token, numbers += dim) {
    tokens.copyRows(values, batch, head, token, token + 1, row.data());
    restoreRow(reinterpret_cast<const int8_t*>(row.data()), dim, numbers);
  }
}

}  // namespace

Napi::Function KvCacheBinding::define(Napi::Env env) {
#define SDPA_METHOD(name) \
  {#name, nullptr, methodEntry<KvCacheBinding, &KvCacheBinding::name>, nullptr, nullptr, nullptr, napi_default, nullptr}
  const napi_property_descriptor methods[] = {
      SDPA_METHOD(append),    SDPA_METHOD(attend),      SDPA_METHOD(step),       SDPA_METHOD(holds),
      SDPA_METHOD(repeater),  SDPA_METHOD(attendAsync), SDPA_METHOD(truncate),   SDPA_METHOD(keep),
      SDPA_METHOD(keptBegin), SDPA_METHOD(copyRows),    SDPA_METHOD(restore),    SDPA_METHOD(copyRowsOut),
      SDPA_METHOD(dispose),   SDPA_METHOD(copyRowsIn),  SDPA_METHOD(length),     SDPA_METHOD(capacity),
      SDPA_METHOD(byteLength), SDPA_METHOD(appendRevocably), SDPA_METHOD(confirmAppend)};
#undef SDPA_METHOD
  napi_value made = nullptr;
  napi_define_class(env, "KvCache", NAPI_AUTO_LENGTH, constructorEntry<KvCacheBinding>, nullptr,
                    sizeof methods / sizeof *methods, methods, &made);
  return Napi::Function(env, made);
}

KvCacheBinding::KvCacheBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KvCacheBinding>(info) {
  const Span layout = Span::from(info.Env(), info[0]);
  if (layout.elementBytes != 8 || layout.length != 8) {
    Napi::TypeError::New(info.Env(), "malformed cache layout").ThrowAsJavaScriptException();
    return;
  }
  const double* values = static_cast<const double*>(layout.data);
  dtype_ = static_cast<DType>(values[4]);
  KvCacheConfig config;
  config.batch = wholeOf(values[0], kOpen);
  config.numKvHeads = wholeOf(values[1], kOpen);
  config.headDim = wholeOf(values[2], kOpen);
  config.valueDim = wholeOf(values[3], kOpen);
  config.elementBytes = bytesOf(dtype_);
  config.isInt8 = dtype_ == kInt8;
  config.maxLength = wholeOf(values[5], kOpen);
  const KvWindow window{wholeOf(values[6], kOpen), wholeOf(values[7], kOpen)};
  if (info[1].IsObject()) {
    KvCacheBinding* const parent = Unwrap(info[1].As<Napi::Object>());
    if (!parent) return;  // with a pending exception
    tokens_.forkFrom(parent->tokens_);
  } else if (!tokens_.reserve(config, window)) {
    Napi::RangeError::New(info.Env(), "no address space for the cache").ThrowAsJavaScriptException();
    return;
  }
  reportMemory(info.Env());
}

KvCacheBinding::~KvCacheBinding() {
  tokens_.release();
  reportMemory(Env());
}

void KvCacheBinding::reportMemory(Napi::Env env) {
  const int64_t change = tokens_.shareOfBytes() - reportedBytes_;
  if (change == 0) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, change);
  reportedBytes_ += change;
}

bool KvCacheBinding::readRows(const Napi::CallbackInfo& info, TokenLayout* layout, KvSource* k, KvSource* v) {
  if (!layout->read(Span::from(info.Env(), info[0]))) return false;
  const int64_t tokens = layout->tokens;
  if (tokens == 0) return true;
  const KvCacheConfig& config = tokens_.config();
  if (!layout->k.find(Span::from(info.Env(), info[1]), config, tokens, config.headDim, k) ||
      !layout->v.find(Span::from(info.Env(), info[2]), config, tokens, config.valueDim, v)) {
    Napi::RangeError::New(info.Env(), "the memory of k or v does not hold the tensor that was described (was its "
                                      "buffer detached or transferred?)")
        .ThrowAsJavaScriptException();
    return false;
  }
  return true;
}

bool KvCacheBinding::appendRows(const Napi::CallbackInfo& info, TokenLayout* layout) {
  KvSource k, v;
  if (!readRows(info, layout, &k, &v)) return false;
  return layout->tokens == 0 || tokens_.appendRevocably(k, v, layout->tokens);
}

bool KvCacheBinding::canHold(const KvSource& k, const KvSource& v, int64_t tokens) const {
  const KvCacheConfig& config = tokens_.config();
  return !config.isInt8 || (isQuantisable(config, k, tokens, config.headDim) && isQuantisable(config, v, tokens, config.valueDim));
}

Napi::Value KvCacheBinding::holds(const Napi::CallbackInfo& info) {
  TokenLayout layout;
  KvSource k, v;
  if (!readRows(info, &layout, &k, &v)) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), layout.tokens == 0 || canHold(k, v, layout.tokens));
}

// Takes back what a step appended, unless the step was done; tells V8 what the cache holds then.
class KvCacheBinding::Appended {
 public:
  Appended(KvCacheBinding& cache, Napi::Env env) : cache_(cache), env_(env), before_(cache.tokens_.length()) {}
  Appended(const Appended&) = delete;
  Appended& operator=(const Appended&) = delete;
  ~Appended() {
    if (isKept_) {
      cache_.tokens_.confirmAppend();
    } else {
      cache_.tokens_.truncate(before_);
    }
    cache_.reportMemory(env_);
  }
  void keep() { isKept_ = true; }

 private:
  KvCacheBinding& cache_;
  Napi::Env env_;
  int64_t before_;
  bool isKept_ = false;
};

bool KvCacheBinding::readProblem(const Napi::CallbackInfo& info, size_t first, DecodedProblem& decoded, TensorSpans& spans) {
  const Napi::Env env = info.Env();
  if (!decoded.decode(env, Span::from(env, info[first]))) return false;
  spans = TensorSpans::from(info, first + 1);
  spans.k = spans.v = Span();  // they are here
  const KvCacheConfig& config = tokens_.config();
  Problem& problem = decoded.problem;
  bool fits = tokens_.isReserved() && problem.numSequences == config.batch && problem.numKvHeads == config.numKvHeads &&
              problem.headDim == config.headDim && problem.valueDim == config.valueDim;
  for (const Sequence& sequence : decoded.sequences) fits = fits && sequence.kvLen <= tokens_.length();
  if (!fits) {
    Napi::RangeError::New(env, "the problem does not describe this cache").ThrowAsJavaScriptException();
    return false;
  }
  if (!decoded.attach(env, spans)) return false;
  pointAtCache(decoded);
  return true;
}

void KvCacheBinding::pointAtCache(DecodedProblem& decoded) {
  const KvCacheConfig& config = tokens_.config();
  Problem& problem = decoded.problem;
  const int64_t bytes = config.strideUnit();
  problem.kvDType = dtype_;
  problem.kRowStride = tokens_.kRowStrideBytes() / bytes;
  problem.vRowStride = tokens_.vRowStrideBytes() / bytes;
  const KvCacheMemory* memory = tokens_.wholeMemory();
  decoded.runs.clear();
  if (!memory) {
    for (int64_t b = 0; b < config.batch; ++b) tokens_.appendRuns(b, decoded.runs);
  } else {
    problem.k = memory->kRow(0, 0);
    problem.v = memory->vRow(0, 0);
    problem.kHeadStride = memory->kHeadStrideBytes() / bytes;
    problem.vHeadStride = memory->vHeadStrideBytes() / bytes;
  }
  const int64_t numRuns = static_cast<int64_t>(decoded.runs.size()) / config.batch;
  for (int64_t b = 0; b < config.batch; ++b) {
    Sequence& sequence = decoded.sequences[static_cast<size_t>(b)];
    sequence.kOffset = b * config.numKvHeads * problem.kHeadStride;
    sequence.vOffset = b * config.numKvHeads * problem.vHeadStride;
    sequence.runs = memory ? nullptr : decoded.runs.data() + b * numRuns;
    sequence.numRuns = numRuns;
    sequence.keptBegin = tokens_.keptBegin();
  }
}

Napi::Value KvCacheBinding::cacheMemory(const Napi::CallbackInfo& info) {
  const KvMemoryInfo memory = kvMemoryInfo();
  Napi::Array numbers = Napi::Array::New(info.Env(), 3);
  numbers.Set(0u, static_cast<double>(memory.caches));
  numbers.Set(1u, static_cast<double>(memory.bytes));
  numbers.Set(2u, static_cast<double>(memory.peakBytes));
  return numbers;
}

Napi::Value KvCacheBinding::append(const Napi::CallbackInfo& info) {
  TokenLayout layout;
  Appended appended(*this, info.Env());
  const bool done = appendRows(info, &layout);
  if (done) appended.keep();
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value KvCacheBinding::appendRevocably(const Napi::CallbackInfo& info) {
  TokenLayout layout;
  const bool done = appendRows(info, &layout);
  if (done) reportMemory(info.Env());
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value KvCacheBinding::confirmAppend(const Napi::CallbackInfo& info) {
  if (tokens_.confirmAppend()) reportMemory(info.Env());
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::attend(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  TensorSpans spans;
  if (!readProblem(info, 0, decoded, spans)) return info.Env().Undefined();
  return statusValue(info.Env(), runAttention(decoded.problem));
}

Napi::Value KvCacheBinding::step(const Napi::CallbackInfo& info) {
  TokenLayout layout;
  Appended appended(*this, info.Env());
  if (!appendRows(info, &layout)) return statusValue(info.Env(), RunStatus::kOutOfMemory);
  DecodedProblem decoded;
  TensorSpans spans;
  if (!readProblem(info, 3, decoded, spans)) return info.Env().Undefined();
  const RunStatus status = runAttention(decoded.problem);
  if (status == RunStatus::kDone) {
    appended.keep();
    repeated_.keep(std::move(decoded), layout);
  }
  return statusValue(info.Env(), status);
}

bool KvCacheBinding::repeat(Napi::Env env, const Span (&spans)[4], const int64_t (&offsets)[4]) {
  if (repeated_.tokens() == 0 || !repeated_.moveTo(spans, offsets, tokens_.config())) return false;
  if (!canHold(repeated_.k(), repeated_.v(), repeated_.tokens())) return false;
  Appended appended(*this, env);
  if (!tokens_.appendRevocably(repeated_.k(), repeated_.v(), repeated_.tokens())) return false;
  DecodedProblem& decoded = repeated_.over(tokens_.length());
  pointAtCache(decoded);
  if (runAttention(decoded.problem) != RunStatus::kDone) return false;
  appended.keep();
  return true;
}

// Not a method, and not wrapped: to find the C++ object of a JavaScript one takes 60 ns, and node-addon-api allocates where
// a call has more than six arguments.
Napi::Value KvCacheBinding::repeater(const Napi::CallbackInfo& info) {
  napi_value function = nullptr;
  if (napi_create_function(info.Env(), "repeatStep", NAPI_AUTO_LENGTH, repeatStep, this, &function) != napi_ok ||
      napi_set_named_property(info.Env(), function, "cache", info.This()) != napi_ok) {  // which it must not outlive
    return info.Env().Undefined();
  }
  return Napi::Value(info.Env(), function);
}

napi_value KvCacheBinding::repeatStep(napi_env env, napi_callback_info info) {
  size_t count = 8;
  napi_value values[8], done = nullptr;
  void* cache = nullptr;
  bool repeated = false;
  if (napi_get_cb_info(env, info, &count, values, nullptr, &cache) == napi_ok && count == 8) {
    const Span spans[4] = {Span::from(env, values[0]), Span::from(env, values[1]), Span::from(env, values[2]),
                           Span::from(env, values[3])};
    int64_t offsets[4] = {-1, -1, -1, -1};
    for (int i = 0; i < 4; ++i) napi_get_value_int64(env, values[4 + i], &offsets[i]);
    try {
      repeated = static_cast<KvCacheBinding*>(cache)->repeat(env, spans, offsets);
    } catch (const std::exception&) {  // step will say what is amiss
    }
  }
  napi_get_boolean(env, repeated, &done);
  return done;
}

Napi::Value KvCacheBinding::attendAsync(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  TensorSpans spans;
  if (!readProblem(info, 0, decoded, spans)) return info.Env().Undefined();
  return AsyncCall::start(info, std::move(decoded), spans);
}

Napi::Value KvCacheBinding::truncate(const Napi::CallbackInfo& info) {
  tokens_.truncate(integerOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::keep(const Napi::CallbackInfo& info) {
  const int64_t begin = integerOf(info[0]);
  const Span indices = Span::from(info.Env(), info[1]);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < indices.length; ++i) {
    rows.push_back(wholeOf(static_cast<const double*>(indices.data)[i]));
    if (begin < 0 || rows.back() < 0 || rows.back() >= tokens_.length() - begin) return Napi::Boolean::New(info.Env(), false);
  }
  const bool kept = tokens_.keep(begin, rows.data(), indices.length);
  reportMemory(info.Env());
  return Napi::Boolean::New(info.Env(), kept);
}

Napi::Value KvCacheBinding::keptBegin(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tokens_.keptBegin()));
}

Napi::Value KvCacheBinding::copyRows(const Napi::CallbackInfo& info) {
  const bool values = static_cast<int>(integerOf(info[0])) == 1;
  const Span out = Span::from(info.Env(), info[1]);
  const int64_t sinkEnd = integerOf(info[2]), begin = integerOf(info[3]);
  const KvCacheConfig& config = tokens_.config();
  const int64_t dim = values ? config.valueDim : config.headDim;
  const int64_t rowBytes = dim * config.elementBytes;
  const int64_t rows = sinkEnd + tokens_.length() - begin;
  if (sinkEnd < 0 || begin < sinkEnd || begin > tokens_.length() ||
      out.length * out.elementBytes < config.batch * config.numKvHeads * rows * rowBytes) {
    Napi::RangeError::New(info.Env(), "the array does not hold the cache").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  uint8_t* place = static_cast<uint8_t*>(out.data);
  for (int64_t b = 0; b < config.batch; ++b) {
    for (int64_t h = 0; h < config.numKvHeads; ++h, place += rows * rowBytes) {
      copyHead(tokens_, values, b, h, 0, sinkEnd, place);
      copyHead(tokens_, values, b, h, begin, tokens_.length(), place + sinkEnd * rowBytes);
    }
  }
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::dispose(const Napi::CallbackInfo& info) {
  tokens_.release();
  reportMemory(info.Env());
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tokens_.length()));
}

Napi::Value KvCacheBinding::capacity(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tokens_.capacity()));
}

Napi::Value KvCacheBinding::byteLength(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tokens_.byteLength()));
}

}  // namespace sdpa
