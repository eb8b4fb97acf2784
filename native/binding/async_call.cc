#include "binding/async_call.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <utility>

#include "binding/entry.h"
#include "binding/pinned_memory.h"
#include "compiler.h"

namespace sdpa {
namespace {

// Multiplications of a call that is short: some milliseconds of one core, at most.
constexpr double kShortWork = 1 << 26;

constexpr uint32_t kOutArgument = 4, kLseArgument = 5;

bool isShort(const DecodedProblem& decoded) {
  const Problem& p = decoded.problem;
  double work = 0;
  for (const Sequence& s : decoded.sequences) {
    work += static_cast<double>(s.qLen) * static_cast<double>(s.kvLen) * static_cast<double>(p.numHeads * (p.headDim + p.valueDim));
  }
  return work <= kShortWork;
}

}  // namespace

// The calls of one environment.
struct AsyncCalls {
  explicit AsyncCalls(Napi::Env env) : env(env) {}

  const Napi::Env env;
  napi_threadsafe_function signal = nullptr;
  std::vector<AsyncCall*> live;      // touched by the environment's thread alone
  std::mutex mutex;                  // of the two that follow
  AsyncCall* finished = nullptr;     // by Background, and not settled yet; a list, which takes no memory
  AsyncCall* lastFinished = nullptr;
  Event running;                     // counts those that Background has

  // Null, with a pending exception, where there can be none.
  static std::shared_ptr<AsyncCalls> of(Napi::Env env);
  void enter(AsyncCall* call);
  void hasFinished(AsyncCall* call);  // by the thread that ran it
  void leave(AsyncCall* call);
  void cancel(AsyncCall* call);
  void settleFinished();

 private:
  bool open();
  static void onSignal(napi_env env, napi_value, void* context, void*);
  static void onEnvironmentEnd(void* self);
};

std::shared_ptr<AsyncCalls> AsyncCalls::of(Napi::Env env) {
  using Holder = std::shared_ptr<AsyncCalls>;
  Holder* holder = env.GetInstanceData<Holder>();
  if (!holder) {
    // All memory first: once it is open, the environment holds its address. (make_shared asks for a newer C++ library than
    // scripts/check-abi.mjs allows.)
    std::unique_ptr<Holder> calls(new Holder(new AsyncCalls(env)));
    if (!(*calls)->open()) {
      Napi::Error::New(env, "the environment takes no asynchronous calls").ThrowAsJavaScriptException();
      return nullptr;
    }
    holder = calls.release();
    env.SetInstanceData<Holder>(holder);
  }
  return *holder;
}

// The hook comes last, so that it runs first: nobody signals an environment that has ended.
bool AsyncCalls::open() {
  const Napi::String name = Napi::String::New(env, "node-sdpa");
  return napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, onSignal, &signal) == napi_ok &&
         napi_unref_threadsafe_function(env, signal) == napi_ok &&
         napi_add_env_cleanup_hook(env, onEnvironmentEnd, this) == napi_ok;
}

// The process does not end before the promises of its calls are settled.
void AsyncCalls::enter(AsyncCall* call) {
  live.push_back(call);
  if (live.size() == 1) napi_ref_threadsafe_function(env, signal);
}

void AsyncCalls::hasFinished(AsyncCall* call) {
  const std::lock_guard<std::mutex> lock(mutex);
  (finished ? lastFinished->nextFinished_ : finished) = call;
  lastFinished = call;
}

void AsyncCalls::leave(AsyncCall* call) {
  live.erase(std::find(live.begin(), live.end(), call));
  if (live.empty()) napi_unref_threadsafe_function(env, signal);
}

void AsyncCalls::cancel(AsyncCall* call) {
  SDPA_WRITE_FLAG(&call->cancelled_, 1);
  if (!Background::shared().withdraw(call)) return;
  running.word.fetch_sub(1);
  call->status_ = RunStatus::kCancelled;
  call->settle(env);
}

void AsyncCalls::settleFinished() {
  AsyncCall* call;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    call = std::exchange(finished, nullptr);
  }
  while (call) std::exchange(call, call->nextFinished_)->settle(env);
}

void AsyncCalls::onSignal(napi_env env, napi_value, void* context, void*) {
  if (!env) return;  // it ends
  const Napi::HandleScope scope(env);
  static_cast<AsyncCalls*>(context)->settleFinished();
}

void AsyncCalls::onEnvironmentEnd(void* self) {
  AsyncCalls& calls = *static_cast<AsyncCalls*>(self);
  for (AsyncCall* call : calls.live) {
    SDPA_WRITE_FLAG(&call->cancelled_, 1);
    if (Background::shared().withdraw(call)) calls.running.word.fetch_sub(1);
  }
  while (const uint32_t left = calls.running.word.load()) calls.running.wait(left);
  for (AsyncCall* call : calls.live) delete call;
  calls.live.clear();
  calls.finished = nullptr;
}

// The call -----------------------------------------------------------------------------------------------------------

AsyncCall::AsyncCall(const Napi::CallbackInfo& info, DecodedProblem decoded, const TensorSpans& spans,
                     std::shared_ptr<AsyncCalls> calls)
    : BackgroundTask(isShort(decoded)),
      decoded_(std::move(decoded)),
      spans_(spans),
      id_(numberOf(info[10])),
      calls_(std::move(calls)) {
  const Napi::Array values = Napi::Array::New(info.Env(), info.Length() + 1);
  const auto keep = [&](size_t i, napi_value value) {
    return napi_set_element(info.Env(), values, static_cast<uint32_t>(i), value) == napi_ok;
  };
  keepsArguments_ = keep(info.Length(), info.This());
  for (size_t i = 0; i < info.Length(); ++i) keepsArguments_ = keepsArguments_ && keep(i, info[i]);
  keepAlive_ = Napi::Reference<Napi::Array>::New(values, 1);
  decoded_.problem.sequences = decoded_.sequences.data();
  decoded_.problem.cancelled = &cancelled_;
}

// Sees to it that the memory of the tensors stays; false if memory is out.
bool AsyncCall::holdTensors(const Napi::CallbackInfo& info) try {
  Problem& p = decoded_.problem;
  uint32_t argument = 1;
  bool holds = true;
  const auto hold = [&](const Span& span, auto& pointer, bool isResult) {
    std::shared_ptr<void> pin;
    const Hold how = holdMemory(info.Env(), info[argument++], pin);
    if (how == Hold::kPinned) pins_.push_back(std::move(pin));
    if (how != Hold::kMayGo || span.last < span.first) return false;
    pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(isResult ? private_.roomFor(span) : private_.copyOf(span));
    holds = holds && pointer != nullptr;
    return isResult;
  };
  hold(spans_.q, p.q, false);
  hold(spans_.k, p.k, false);
  hold(spans_.v, p.v, false);
  ownOut_ = hold(spans_.out, p.out, true);
  ownLse_ = hold(spans_.lse, p.lse, true);
  hold(spans_.mask, p.mask, false);
  hold(spans_.bias, p.bias, false);
  hold(spans_.alibiSlopes, p.alibiSlopes, false);
  hold(spans_.sinks, p.sinks, false);
  return holds;
} catch (const std::exception&) {
  return false;
}

Napi::Value AsyncCall::start(const Napi::CallbackInfo& info, DecodedProblem decoded, const TensorSpans& spans) {
  const Napi::Env env = info.Env();
  std::shared_ptr<AsyncCalls> calls = AsyncCalls::of(env);
  if (!calls) return env.Undefined();
  std::unique_ptr<AsyncCall> made(new AsyncCall(info, std::move(decoded), spans, calls));
  if (!made->keepsArguments_) {  // the environment is about to end, and runs no more JavaScript
    Napi::Error::New(env, "the environment takes no asynchronous calls").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  napi_value promise;
  if (napi_create_promise(env, &made->deferred_, &promise) != napi_ok) return env.Undefined();
  calls->enter(made.get());
  AsyncCall* const call = made.release();  // it deletes itself when it is settled
  if (!call->holdTensors(info)) {
    call->status_ = RunStatus::kOutOfMemory;
    call->settle(env);
    return Napi::Value(env, promise);
  }
  calls->running.word.fetch_add(1);
  if (!Background::shared().submit(call)) {
    calls->running.word.fetch_sub(1);
    call->run();
    call->settle(env);
  }
  return Napi::Value(env, promise);
}

void AsyncCall::run() { status_ = runAttention(decoded_.problem); }

void AsyncCall::ended() {
  const std::shared_ptr<AsyncCalls> calls = calls_;  // once it is handed back, this may be deleted
  calls->hasFinished(this);
  napi_call_threadsafe_function(calls->signal, nullptr, napi_tsfn_nonblocking);
  if (calls->running.word.fetch_sub(1) == 1) calls->running.wake(1);
}

// Where the environment is about to end a promise cannot be resolved any more; nobody waits for it.
void AsyncCall::settle(Napi::Env env) {
  if (status_ == RunStatus::kDone && (ownOut_ || ownLse_)) {
    const Napi::Array arguments = keepAlive_.Value();
    const auto now = [&](uint32_t i) { return Span::from(env, arguments.Get(i)); };
    if (ownOut_) PrivateMemory::giveBack(decoded_.problem, spans_.out, now(kOutArgument));
    if (ownLse_) PrivateMemory::giveBackLse(decoded_.problem, spans_.lse, now(kLseArgument));
  }
  napi_value status;
  if (napi_create_int32(env, static_cast<int32_t>(status_), &status) == napi_ok) napi_resolve_deferred(env, deferred_, status);
  calls_->leave(this);
  delete this;
}

Napi::Value AsyncCall::cancel(const Napi::CallbackInfo& info) {
  const std::shared_ptr<AsyncCalls> calls = AsyncCalls::of(info.Env());
  if (!calls) return info.Env().Undefined();
  const double id = numberOf(info[0]);
  const auto isIt = [id](const AsyncCall* call) { return call->id_ == id; };
  const auto found = std::find_if(calls->live.begin(), calls->live.end(), isIt);
  if (found != calls->live.end()) calls->cancel(*found);
  return info.Env().Undefined();
}

}  // namespace sdpa
