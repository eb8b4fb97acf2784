#include "binding/step_all_binding.h"

#include <vector>

#include "binding/kv_cache_binding.h"
#include "runtime/step_all.h"

namespace sdpa {
namespace {

Napi::Value fail(Napi::Env env, const char* message) {
  Napi::RangeError::New(env, message).ThrowAsJavaScriptException();
  return env.Undefined();
}

// The caches of a call and the tokens that each takes.
struct Caches {
  std::vector<KvCacheBinding*> caches;
  std::vector<int64_t> tokens, before;

  // False where the arguments are no such thing.
  bool read(Napi::Env env, const Napi::Value& list, const Span& counts) {
    if (!list.IsArray() || counts.elementBytes != 8) return false;
    const Napi::Array array = list.As<Napi::Array>();
    if (array.Length() == 0 || counts.length != array.Length()) return false;
    for (uint32_t i = 0; i < array.Length(); ++i) {
      const Napi::Value value = array[i];
      caches.push_back(value.IsObject() ? KvCacheBinding::Unwrap(value.As<Napi::Object>()) : nullptr);
      if (env.IsExceptionPending() || !caches.back() || !caches.back()->tokens().isReserved()) return false;
      tokens.push_back(wholeOf(static_cast<const double*>(counts.data)[i]));
      before.push_back(caches.back()->tokens().length());
    }
    return true;
  }

  // Of one layout, and as the problem describes them once the tokens are there.
  bool fit(const DecodedProblem& decoded, int64_t mostTokens) const {
    const Problem& problem = decoded.problem;
    bool fits = problem.numSequences == static_cast<int64_t>(caches.size());
    for (size_t i = 0; fits && i < caches.size(); ++i) {
      const KvCacheConfig& config = caches[i]->tokens().config();
      fits = config.batch == 1 && problem.numKvHeads == config.numKvHeads && problem.headDim == config.headDim &&
             problem.valueDim == config.valueDim && caches[i]->dtype() == caches[0]->dtype() && tokens[i] >= 0 &&
             tokens[i] <= mostTokens && decoded.sequences[i].kvLen <= before[i] + tokens[i];
    }
    return fits;
  }

  // Entry i of k and v to cache i. False where one has no room.
  bool append(KvSource k, KvSource v) {
    for (size_t i = 0; i < caches.size(); ++i) {
      if (!caches[i]->tokens().appendRevocably(k, v, tokens[i])) return false;
      if (!k.data) continue;
      k.data = static_cast<const char*>(k.data) + k.batchStrideBytes;
      v.data = static_cast<const char*>(v.data) + v.batchStrideBytes;
    }
    return true;
  }

  // After append, whatever came of it.
  void settle(bool keep) {
    for (size_t i = 0; i < caches.size(); ++i) {
      if (keep) {
        caches[i]->tokens().confirmAppend();
      } else {
        caches[i]->tokens().truncate(before[i]);
      }
    }
  }
};

}  // namespace

Napi::Value stepAll(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Caches all;
  TokenLayout layout;
  DecodedProblem decoded;
  if (!all.read(env, info[0], Span::from(env, info[1])) || !layout.read(Span::from(env, info[2]))) {
    return env.IsExceptionPending() ? env.Undefined() : fail(env, "malformed list of caches");
  }
  if (!decoded.decode(env, Span::from(env, info[5]))) return env.Undefined();
  if (!all.fit(decoded, layout.tokens)) return fail(env, "the problem does not describe these caches");
  TensorSpans spans = TensorSpans::from(info, 6);
  spans.k = spans.v = Span();  // they are here
  if (!decoded.attach(env, spans)) return env.Undefined();
  KvSource k, v;
  KvCacheConfig config = all.caches[0]->tokens().config();
  config.batch = static_cast<int64_t>(all.caches.size());
  if (layout.tokens > 0 && (!layout.k.find(Span::from(env, info[3]), config, layout.tokens, config.headDim, &k) ||
                            !layout.v.find(Span::from(env, info[4]), config, layout.tokens, config.valueDim, &v))) {
    return fail(env, "the memory of k or v does not hold the tensor that was described (was its buffer detached or transferred?)");
  }
  decoded.problem.kvDType = all.caches[0]->dtype();
  std::vector<const KvTokens*> tokens;
  for (KvCacheBinding* cache : all.caches) tokens.push_back(&cache->tokens());
  const RunStatus status =
      all.append(k, v) ? attendAll(decoded.problem, decoded.sequences, tokens) : RunStatus::kOutOfMemory;
  all.settle(status == RunStatus::kDone);
  for (KvCacheBinding* cache : all.caches) cache->reportMemory(env);
  return statusValue(env, status);
}

}  // namespace sdpa
