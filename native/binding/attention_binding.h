// attention() of the addon, sync and async, and what it shares with the cache's binding.
#pragma once

#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "runtime/attention.h"

namespace sdpa {

// What a call returns to TypeScript: 0 done, 1 cancelled, 2 out of memory. undefined with a pending exception.
Napi::Value statusValue(Napi::Env env, RunStatus status);

// A problem that runs off the event loop. Until the promise is settled, with a status as above, it holds the memory of the
// typed arrays that it uses, whatever becomes of them in JavaScript.
class AttentionWorker : public Napi::AsyncWorker {
 public:
  // `info` is of the call: its `this` and every argument are held. cancelFlag is an Int32Array or nothing.
  AttentionWorker(const Napi::CallbackInfo& info, DecodedProblem decoded, const Span& cancelFlag);
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override;
  void OnOK() override;

 private:
  DecodedProblem decoded_;
  Napi::Reference<Napi::Value> keepAlive_;
  std::vector<std::shared_ptr<void>> pins_;
  Napi::Promise::Deferred deferred_;
  RunStatus status_ = RunStatus::kDone;
};

// attention(problem, q, k, v, out, lse, mask, bias, alibiSlopes, sinks) -> status
Napi::Value attention(const Napi::CallbackInfo& info);
// attentionAsync(problem, q, ..., sinks, cancelFlag) -> Promise<status>
Napi::Value attentionAsync(const Napi::CallbackInfo& info);

}  // namespace sdpa
