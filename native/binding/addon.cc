// The addon's exports. Mirrored by lib/native/addon.ts.
#include <napi.h>

#include "binding/async_call.h"
#include "binding/attention_binding.h"
#include "binding/kv_cache_binding.h"
#include "binding/machine_binding.h"
#include "binding/pinned_memory.h"
#include "binding/step_all_binding.h"
#include "binding/stats_binding.h"

namespace {

Napi::Array fieldNames(Napi::Env env, const char* const* names, size_t count) {
  Napi::Array array = Napi::Array::New(env, count);
  for (size_t i = 0; i < count; ++i) array.Set(static_cast<uint32_t>(i), names[i]);
  return array;
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
#define SDPA_NAME(name) #name,
  static const char* const problemFields[] = {SDPA_PROBLEM_FIELDS(SDPA_NAME)};
  static const char* const sequenceFields[] = {SDPA_SEQUENCE_FIELDS(SDPA_NAME)};
#undef SDPA_NAME
  exports.Set("problemFields", fieldNames(env, problemFields, sizeof problemFields / sizeof *problemFields));
  exports.Set("sequenceFields", fieldNames(env, sequenceFields, sizeof sequenceFields / sizeof *sequenceFields));
  exports.Set("attention", Napi::Function::New(env, sdpa::attention, "attention"));
  exports.Set("attentionAsync", Napi::Function::New(env, sdpa::attentionAsync, "attentionAsync"));
  exports.Set("cancelAsync", Napi::Function::New(env, sdpa::AsyncCall::cancel, "cancelAsync"));
  exports.Set("pinsMemory", Napi::Function::New(env, sdpa::pinsMemory, "pinsMemory"));
  exports.Set("attentionStats", Napi::Function::New(env, sdpa::attentionStats, "attentionStats"));
  exports.Set("KvCache", sdpa::KvCacheBinding::define(env));
  exports.Set("stepAll", Napi::Function::New(env, sdpa::stepAll, "stepAll"));
  exports.Set("cacheMemory", Napi::Function::New(env, sdpa::KvCacheBinding::cacheMemory, "cacheMemory"));
  sdpa::exportMachine(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(node_sdpa, initialise)
