#include "binding/kv_cache_binding.h"

#include <string.h>

#include <utility>

namespace sdpa {
namespace {

int64_t elementBytesOf(DType dtype) { return dtype == kFloat32 ? 4 : 2; }

// A strided source of rows, from four numbers (offset and batch, head, row strides in elements) and its memory.
bool readSource(const Span& span, const double* layout, const int64_t extents[3], int64_t dim, int64_t bytes,
                KvSource* source) {
  int64_t low = static_cast<int64_t>(layout[0]), high = low;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t last = (extents[axis] - 1) * static_cast<int64_t>(layout[axis + 1]);
    (last < 0 ? low : high) += last;
  }
  if (!span.given || span.elementBytes != bytes || low < 0 || high + dim > span.length) return false;
  source->data = static_cast<const char*>(span.data) + static_cast<int64_t>(layout[0]) * bytes;
  source->batchStrideBytes = static_cast<int64_t>(layout[1]) * bytes;
  source->headStrideBytes = static_cast<int64_t>(layout[2]) * bytes;
  source->rowStrideBytes = static_cast<int64_t>(layout[3]) * bytes;
  return true;
}

}  // namespace

Napi::Function KvCacheBinding::define(Napi::Env env) {
  return DefineClass(env, "KvCache",
                     {InstanceMethod("append", &KvCacheBinding::append), InstanceMethod("attend", &KvCacheBinding::attend),
                      InstanceMethod("step", &KvCacheBinding::step),
                      InstanceMethod("attendAsync", &KvCacheBinding::attendAsync),
                      InstanceMethod("truncate", &KvCacheBinding::truncate),
                      InstanceMethod("copyRows", &KvCacheBinding::copyRows),
                      InstanceMethod("dispose", &KvCacheBinding::dispose), InstanceMethod("length", &KvCacheBinding::length),
                      InstanceMethod("capacity", &KvCacheBinding::capacity),
                      InstanceMethod("byteLength", &KvCacheBinding::byteLength)});
}

KvCacheBinding::KvCacheBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<KvCacheBinding>(info) {
  const Span layout = Span::from(info.Env(), info[0]);
  if (layout.elementBytes != 8 || layout.length != 6) {
    Napi::TypeError::New(info.Env(), "malformed cache layout").ThrowAsJavaScriptException();
    return;
  }
  const double* values = static_cast<const double*>(layout.data);
  dtype_ = static_cast<DType>(values[4]);
  KvCacheConfig config;
  config.batch = static_cast<int64_t>(values[0]);
  config.numKvHeads = static_cast<int64_t>(values[1]);
  config.headDim = static_cast<int64_t>(values[2]);
  config.valueDim = static_cast<int64_t>(values[3]);
  config.elementBytes = elementBytesOf(dtype_);
  config.maxLength = static_cast<int64_t>(values[5]);
  if (!memory_.reserve(config)) {
    Napi::RangeError::New(info.Env(), "no address space for the cache").ThrowAsJavaScriptException();
    return;
  }
  reportMemory(info.Env());
}

KvCacheBinding::~KvCacheBinding() {
  memory_.release();
  reportMemory(Env());
}

void KvCacheBinding::reportMemory(Napi::Env env) {
  const int64_t change = memory_.byteLength() - reportedBytes_;
  if (change == 0) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, change);
  reportedBytes_ += change;
}

bool KvCacheBinding::appendRows(const Napi::CallbackInfo& info) {
  const Span layout = Span::from(info.Env(), info[0]);
  const double* values = static_cast<const double*>(layout.data);
  if (layout.elementBytes != 8 || layout.length != 9 || values[0] < 0) return false;
  const int64_t tokens = static_cast<int64_t>(values[0]);
  if (tokens == 0) return true;
  const KvCacheConfig& config = memory_.config();
  const int64_t extents[3] = {config.batch, config.numKvHeads, tokens};
  KvSource k, v;
  if (!readSource(Span::from(info.Env(), info[1]), values + 1, extents, config.headDim, config.elementBytes, &k) ||
      !readSource(Span::from(info.Env(), info[2]), values + 5, extents, config.valueDim, config.elementBytes, &v)) {
    Napi::RangeError::New(info.Env(), "the memory of k or v does not hold the tensor that was described (was its "
                                      "buffer detached or transferred?)")
        .ThrowAsJavaScriptException();
    return false;
  }
  const bool done = memory_.append(k, v, tokens);
  if (done) reportMemory(info.Env());
  return done;
}

bool KvCacheBinding::readProblem(const Napi::CallbackInfo& info, size_t first, DecodedProblem& decoded) {
  const Napi::Env env = info.Env();
  if (!decoded.decode(env, Span::from(env, info[first]))) return false;
  TensorSpans spans = TensorSpans::from(info, first + 1);
  spans.k = spans.v = Span();  // they are here
  const KvCacheConfig& config = memory_.config();
  Problem& problem = decoded.problem;
  bool fits = problem.numSequences == config.batch && problem.numKvHeads == config.numKvHeads &&
              problem.headDim == config.headDim && problem.valueDim == config.valueDim;
  for (const Sequence& sequence : decoded.sequences) fits = fits && sequence.kvLen <= memory_.length();
  if (!fits) {
    Napi::RangeError::New(env, "the problem does not describe this cache").ThrowAsJavaScriptException();
    return false;
  }
  if (!decoded.attach(env, spans)) return false;
  const int64_t bytes = config.elementBytes;
  problem.kvDType = dtype_;
  problem.k = memory_.kRow(0, 0);
  problem.v = memory_.vRow(0, 0);
  problem.kRowStride = memory_.kRowStrideBytes() / bytes;
  problem.vRowStride = memory_.vRowStrideBytes() / bytes;
  problem.kHeadStride = memory_.kHeadStrideBytes() / bytes;
  problem.vHeadStride = memory_.vHeadStrideBytes() / bytes;
  for (int64_t b = 0; b < config.batch; ++b) {
    decoded.sequences[static_cast<size_t>(b)].kOffset = b * config.numKvHeads * problem.kHeadStride;
    decoded.sequences[static_cast<size_t>(b)].vOffset = b * config.numKvHeads * problem.vHeadStride;
  }
  return true;
}

Napi::Value KvCacheBinding::append(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), appendRows(info));
}

Napi::Value KvCacheBinding::attend(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  if (!readProblem(info, 0, decoded)) return info.Env().Undefined();
  return statusValue(info.Env(), runAttention(decoded.problem));
}

Napi::Value KvCacheBinding::step(const Napi::CallbackInfo& info) {
  const int64_t before = memory_.length();
  if (!appendRows(info)) return statusValue(info.Env(), RunStatus::kOutOfMemory);
  DecodedProblem decoded;
  if (!readProblem(info, 3, decoded)) {
    memory_.truncate(before);
    return info.Env().Undefined();
  }
  const RunStatus status = runAttention(decoded.problem);
  if (status != RunStatus::kDone) memory_.truncate(before);
  return statusValue(info.Env(), status);
}

Napi::Value KvCacheBinding::attendAsync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  DecodedProblem decoded;
  if (!readProblem(info, 0, decoded)) return env.Undefined();
  auto* worker = new AttentionWorker(info, std::move(decoded), Span::from(env, info[10]));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

Napi::Value KvCacheBinding::truncate(const Napi::CallbackInfo& info) {
  memory_.truncate(info[0].ToNumber().Int64Value());
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::copyRows(const Napi::CallbackInfo& info) {
  const bool values = info[0].ToNumber().Int32Value() == 1;
  const Span out = Span::from(info.Env(), info[1]);
  const KvCacheConfig& config = memory_.config();
  const int64_t rowBytes = (values ? config.valueDim : config.headDim) * config.elementBytes;
  const int64_t stride = values ? memory_.vRowStrideBytes() : memory_.kRowStrideBytes();
  const int64_t length = memory_.length();
  if (out.length * out.elementBytes < config.batch * config.numKvHeads * length * rowBytes) {
    Napi::RangeError::New(info.Env(), "the array does not hold the cache").ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  char* place = static_cast<char*>(out.data);
  for (int64_t b = 0; b < config.batch; ++b) {
    for (int64_t h = 0; h < config.numKvHeads; ++h) {
      const uint8_t* row = values ? memory_.vRow(b, h) : memory_.kRow(b, h);
      for (int64_t i = 0; i < length; ++i, place += rowBytes) {
        memcpy(place, row + i * stride, static_cast<size_t>(rowBytes));
      }
    }
  }
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::dispose(const Napi::CallbackInfo& info) {
  memory_.release();
  reportMemory(info.Env());
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(memory_.length()));
}

Napi::Value KvCacheBinding::capacity(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(memory_.capacity()));
}

Napi::Value KvCacheBinding::byteLength(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(memory_.byteLength()));
}

}  // namespace sdpa
