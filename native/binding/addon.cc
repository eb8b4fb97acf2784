// The addon's exports. Mirrored by lib/native/addon.ts.
#include <napi.h>

#include <exception>

#include "binding/async_call.h"
#include "binding/attention_binding.h"
#include "binding/entry.h"
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
  sdpa::exportFunction<sdpa::attention>(exports, "attention");
  sdpa::exportFunction<sdpa::attentionAsync>(exports, "attentionAsync");
  sdpa::exportFunction<sdpa::AsyncCall::cancel>(exports, "cancelAsync");
  sdpa::exportFunction<sdpa::pinsMemory>(exports, "pinsMemory");
  sdpa::exportFunction<sdpa::attentionStats>(exports, "attentionStats");
  exports.Set("KvCache", sdpa::KvCacheBinding::define(env));
  sdpa::exportFunction<sdpa::stepAll>(exports, "stepAll");
  sdpa::exportFunction<sdpa::KvCacheBinding::cacheMemory>(exports, "cacheMemory");
  sdpa::exportMachine(exports);
  return exports;
}

napi_value load(napi_env env, napi_value exports) {
  return sdpa::enter(env, [&]() -> napi_value { return initialise(env, Napi::Object(env, exports)); });
}

}  // namespace

#if defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
// GCC 14 calls it where an exception would leave a destructor. Ours, for older libstdc++ have none (headers/glibc_floor.h);
// hidden by the assembler, as the compiler has declared it visible.
extern "C" void __cxa_call_terminate(void*) noexcept { std::terminate(); }
__asm__(".hidden __cxa_call_terminate");
#endif

NAPI_MODULE(node_sdpa, load)
