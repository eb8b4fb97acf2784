#include "binding/attention_binding.h"

#include <utility>

#include "binding/async_call.h"

namespace sdpa {
namespace {

bool readProblem(const Napi::CallbackInfo& info, DecodedProblem& decoded, TensorSpans& spans) {
  spans = TensorSpans::from(info, 1);
  return decoded.decode(info.Env(), Span::from(info.Env(), info[0])) && decoded.attach(info.Env(), spans);
}

}  // namespace

Napi::Value statusValue(Napi::Env env, RunStatus status) { return Napi::Number::New(env, static_cast<int>(status)); }

Napi::Value attention(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  TensorSpans spans;
  if (!readProblem(info, decoded, spans)) return info.Env().Undefined();
  return statusValue(info.Env(), runAttention(decoded.problem));
}

Napi::Value attentionAsync(const Napi::CallbackInfo& info) {
  DecodedProblem decoded;
  TensorSpans spans;
  if (!readProblem(info, decoded, spans)) return info.Env().Undefined();
  return AsyncCall::start(info, std::move(decoded), spans);
}

}  // namespace sdpa
