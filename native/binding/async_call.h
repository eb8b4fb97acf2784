// A problem that runs off the event loop, on the threads of runtime/background.h, and settles a promise.
//
// Who owns what. A call belongs to its environment (the main thread, or a worker_thread), which lists it until its promise
// is settled. A thread of Background that has run it hands it back (AsyncCalls::finished) and signals the event loop. When
// an environment ends, a hook takes back what waits, stops what runs (they look between two blocks of keys, some
// milliseconds at most) and waits for it: only then do the memory of the arguments and the signal go.
#pragma once

#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "binding/private_memory.h"
#include "runtime/attention.h"
#include "runtime/background.h"

namespace sdpa {

struct AsyncCalls;

class AsyncCall : public BackgroundTask {
 public:
  // Starts a problem whose tensors are the nine arguments from info[1] on, `spans`; a promise of its status. Until it is
  // settled, `this` and every argument are held, and the memory that the call uses stays, whatever becomes of the typed
  // arrays in JavaScript. info[10] is a number by which cancelAsync knows the call.
  static Napi::Value start(const Napi::CallbackInfo& info, DecodedProblem decoded, const TensorSpans& spans);

  // cancelAsync(id): one that waits is settled at once, one that runs soon, with the status cancelled
  static Napi::Value cancel(const Napi::CallbackInfo& info);

 private:
  friend struct AsyncCalls;
  AsyncCall(const Napi::CallbackInfo& info, DecodedProblem decoded, const TensorSpans& spans, std::shared_ptr<AsyncCalls> calls);
  bool holdTensors(const Napi::CallbackInfo& info);
  void run() override;
  void ended() override;
  void settle(Napi::Env env);

  DecodedProblem decoded_;
  TensorSpans spans_;
  const double id_;
  const std::shared_ptr<AsyncCalls> calls_;
  Napi::Reference<Napi::Array> keepAlive_;  // the arguments, then `this`
  bool keepsArguments_ = false;
  std::vector<std::shared_ptr<void>> pins_;
  PrivateMemory private_;
  bool ownOut_ = false, ownLse_ = false;  // in private_
  napi_deferred deferred_ = nullptr;
  AsyncCall* nextFinished_ = nullptr;
  volatile int32_t cancelled_ = 0;
  RunStatus status_ = RunStatus::kDone;
};

}  // namespace sdpa
