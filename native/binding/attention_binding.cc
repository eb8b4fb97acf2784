#include "binding/attention_binding.h"

#include <utility>

namespace sdpa {
namespace {

bool readProblem(const Napi::CallbackInfo& info, DecodedProblem& decoded) {
  return decoded.decode(info.Env(), Span::from(info.Env(), info[0])) && decoded.attach(info.Env(), TensorSpans::from(info, 1));
}

}  // namespace

Napi::Value statusValue(Napi::Env env, RunStatus status) { return Napi::Number::New(env, static_cast<int>(status)); }

AttentionWorker::AttentionWorker(Napi::Env env, DecodedProblem decoded, Napi::Value keepAlive, const Span& cancelFlag)
    : Napi::AsyncWorker(env),
      decoded_(std::move(decoded)),
      keepAlive_(Napi::Reference<Napi::Value>::New(keepAlive, 1)),
      deferred_(Napi::Promise::Deferred::New(env)) {
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
  Napi::Array keepAlive = Napi::Array::New(env, info.Length());
  for (uint32_t i = 0; i < info.Length(); ++i) keepAlive.Set(i, info[i]);
  auto* worker = new AttentionWorker(env, std::move(decoded), keepAlive, Span::from(env, info[10]));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace sdpa
