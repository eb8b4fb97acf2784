// The addon's KvCache class: cache memory with attention over it.
#pragma once

#include "binding/attention_binding.h"
#include "binding/repeated_step.h"
#include "runtime/kv_tokens.h"

namespace sdpa {

// new KvCache([batch, numKvHeads, headDim, valueDim, dtype, maxLength (0 = unbounded), window (0 = none), sinkTokens]), or
// new KvCache(layout, another): an independent continuation of that one
class KvCacheBinding : public Napi::ObjectWrap<KvCacheBinding> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit KvCacheBinding(const Napi::CallbackInfo& info);
  ~KvCacheBinding() override;

  // What an export that takes caches finds behind one of them.
  KvTokens& tokens() { return tokens_; }
  DType dtype() const { return dtype_; }
  // Tells V8 what the cache holds outside its heap.
  void reportMemory(Napi::Env env);

  // cacheMemory() -> [caches, bytes, peakBytes] of the process
  static Napi::Value cacheMemory(const Napi::CallbackInfo& info);

 private:
  // append(layout, k, v) -> whether there was room; layout = [tokens, then offset and batch, head, row strides in
  // elements of k, then the same of v]
  Napi::Value append(const Napi::CallbackInfo& info);
  // appendRevocably(layout, k, v), then confirmAppend() or truncate(the length before), which leaves no trace
  Napi::Value appendRevocably(const Napi::CallbackInfo& info);
  Napi::Value confirmAppend(const Napi::CallbackInfo& info);
  // attend(problem, then the nine operands of attention, k and v null) -> status
  Napi::Value attend(const Napi::CallbackInfo& info);
  // step(layout, k, v, problem, operands) -> status; 2, with nothing appended, where there is no room
  Napi::Value step(const Napi::CallbackInfo& info);
  // holds(layout, k, v) -> whether the cache can hold these rows: an int8 cache, finite numbers
  Napi::Value holds(const Napi::CallbackInfo& info);
  // repeater() -> function(q, k, v, out, and the element of each where its tensor begins): does the last step again, with
  // this memory -> whether it did; nothing has changed where it did not
  Napi::Value repeater(const Napi::CallbackInfo& info);
  static napi_value repeatStep(napi_env env, napi_callback_info info);
  // attendAsync(problem, operands, id) -> Promise<status>; async_call.h
  Napi::Value attendAsync(const Napi::CallbackInfo& info);
  Napi::Value truncate(const Napi::CallbackInfo& info);
  // keep(begin, indices: Float64Array) -> whether there was room: of the tokens from `begin` on these only, in this order
  Napi::Value keep(const Napi::CallbackInfo& info);
  Napi::Value keptBegin(const Napi::CallbackInfo& info);
  // copyRows(which: 0 keys, 1 values; out: a contiguous [batch, numKvHeads, tokens, dim] array; sinkEnd, begin): tokens
  // [0, sinkEnd), then [begin, length)
  Napi::Value copyRows(const Napi::CallbackInfo& info);
  // In cache_rows_binding.cc. restore(keptBegin, length) -> whether there was room: an empty cache becomes one of so many
  // tokens; copyRowsOut and copyRowsIn(which: 0 keys, 1 values; first, bytes): rows of [batch, numKvHeads, kept tokens]
  Napi::Value restore(const Napi::CallbackInfo& info);
  Napi::Value copyRowsOut(const Napi::CallbackInfo& info);
  Napi::Value copyRowsIn(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value length(const Napi::CallbackInfo& info);
  Napi::Value capacity(const Napi::CallbackInfo& info);
  Napi::Value byteLength(const Napi::CallbackInfo& info);

  class Appended;

  bool readRows(const Napi::CallbackInfo& info, TokenLayout* layout, KvSource* k, KvSource* v);
  bool canHold(const KvSource& k, const KvSource& v, int64_t tokens) const;
  bool appendRows(const Napi::CallbackInfo& info, TokenLayout* layout);
  bool repeat(Napi::Env env, const Span (&spans)[4], const int64_t (&offsets)[4]);
  // Decodes the problem whose arguments begin at `first`, and points its keys and values at this cache.
  bool readProblem(const Napi::CallbackInfo& info, size_t first, DecodedProblem& decoded, TensorSpans& spans);
  void pointAtCache(DecodedProblem& decoded);

  KvTokens tokens_;
  RepeatedStep repeated_;
  DType dtype_ = kFloat32;
  int64_t reportedBytes_ = 0;
};

}  // namespace sdpa
