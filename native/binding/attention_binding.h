// attention() of the addon, sync and async.
#pragma once

#include "binding/arguments.h"
#include "runtime/attention.h"

namespace sdpa {

// What a call returns to TypeScript: 0 done, 1 cancelled, 2 out of memory. undefined with a pending exception.
Napi::Value statusValue(Napi::Env env, RunStatus status);

// attention(problem, q, k, v, out, lse, mask, bias, alibiSlopes, sinks) -> status
Napi::Value attention(const Napi::CallbackInfo& info);
// attentionAsync(problem, q, ..., sinks, id) -> Promise<status>; async_call.h
Napi::Value attentionAsync(const Napi::CallbackInfo& info);

}  // namespace sdpa
