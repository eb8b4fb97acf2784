#include "binding/attention_binding.h"

#include <utility>

#include "binding/pinned_memory.h"

namespace sdpa {
namespace {

bool readProblem(const Napi::CallbackInfo& info, DecodedProblem& decoded) {
  return decoded.decode(info.Env(), Span::from(info.Env(), info[0])) && decoded.attach(info.Env(), TensorSpans::from(info, 1));
}

}  // namespace

Napi::Value statusValue(Napi::Env env, RunStatus status) { return Napi::Number::New(env, static_cast<int>(status)); }

AttentionWorker::AttentionWorker(const Napi::CallbackInfo& info, DecodedProblem decoded, const Span& cancelFlag)
    : Napi::AsyncWorker(info.Env()),
      decoded_(std::move(decoded)),
      deferred_(Napi::Promise::Deferred::New(info.Env())) {
  Napi::Array values = Napi::Array::New(info.Env(), info.Length() + 1);
  for (uint32_t i = 0; i < info.Length(); ++i) {
    values.Set(i, info[i]);
    if (auto pin = pinMemory(info.Env(), info[i])) pins_.push_back(std::move(pin));
  }
  values.Set(static_cast<uint32_t>(info.Length()), info.This());
  keepAlive_ = Napi::Reference<Napi::Value>::New(values, 1);
  decoded_.problem.sequences = decoded_.sequences.data();
  decoded_.problem.cancelled = static_cast<const volatile int32_t*>(cancelFlag.data);
}

void AttentionWorker::Execute() { status_ = runAttention(decoded_.problem); }

void AttentionWorker::OnOK() { deferred_.Resolve(statusValue(Env(), status_)); }

Napi::Value attention(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  if (!readProblem(info, decoded)) return info.Env().Undefined();
  return statusValue(info.Env(), runAttention(decoded.problem));
}

Napi::Value attentionAsync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  DecodedProblem decoded;
  if (!readProblem(info, decoded)) return env.Undefined();
  auto* worker = new AttentionWorker(info, std::move(decoded), Span::from(env, info[10]));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace sdpa
