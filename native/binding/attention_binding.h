// attention() of the addon, sync and async, and what it shares with the cache's binding.
#pragma once

#include "binding/arguments.h"
#include "runtime/attention.h"

namespace sdpa {

// What a call returns to TypeScript: 0 done, 1 cancelled, 2 out of memory. undefined with a pending exception.
Napi::Value statusValue(Napi::Env env, RunStatus status);

// A problem that runs off the event loop. Holds its inputs alive until the promise is settled with a status as above.
class AttentionWorker : public Napi::AsyncWorker {
 public:
  // `keepAlive` holds every JavaScript value whose memory the problem uses; cancelFlag is an Int32Array or nothing.
  AttentionWorker(Napi::Env env, DecodedProblem decoded, Napi::Value keepAlive, const Span& cancelFlag);
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override;
  void OnOK() override;

 private:
  DecodedProblem decoded_;
  Napi::Reference<Napi::Value> keepAlive_;
  Napi::Promise::Deferred deferred_;
  RunStatus status_ = RunStatus::kDone;
};

// attention(problem, q, k, v, out, lse, mask, bias, alibiSlopes, sinks) -> status
Napi::Value attention(const Napi::CallbackInfo& info);
// attentionAsync(problem, q, ..., sinks, cancelFlag) -> Promise<status>
Napi::Value attentionAsync(const Napi::CallbackInfo& info);

}  // namespace sdpa
