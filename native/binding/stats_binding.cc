#include "binding/stats_binding.h"

#include "binding/arguments.h"
#include "binding/attention_binding.h"
#include "runtime/stats.h"

namespace sdpa {
namespace {

// JavaScript's Infinity marks an open side.
int64_t sideOf(double x) { return wholeOf(x, kOpen); }

// The arguments from info[first] on. The extent of lse has been checked; the others must hold as much as it does.
bool readOutput(const Napi::CallbackInfo& info, size_t first, const Span& lse, StatsOutput& output) {
  const auto span = [&](size_t i) { return Span::from(info.Env(), info[first + i]); };
  const Span entropy = span(0), maxWeight = span(1), argmax = span(2), windowMass = span(3), massWindow = span(4);
  const auto holds = [&](const Span& result) { return result.elementBytes == 4 && result.length >= lse.length; };
  const bool hasMass = windowMass.given && massWindow.elementBytes == 8 && massWindow.length == 3;
  if (!lse.given || !holds(entropy) || !holds(maxWeight) || !holds(argmax) || windowMass.given != hasMass ||
      (hasMass && !holds(windowMass))) {
    return false;
  }
  output.entropy = static_cast<float*>(entropy.data);
  output.maxWeight = static_cast<float*>(maxWeight.data);
  output.argmax = static_cast<int32_t*>(argmax.data);
  output.windowMass = static_cast<float*>(windowMass.data);
  if (!hasMass) return true;
  const double* window = static_cast<const double*>(massWindow.data);
  output.massLeft = sideOf(window[0]);
  output.massRight = sideOf(window[1]);
  output.massSinkTokens = sideOf(window[2]);
  return true;
}

}  // namespace

Napi::Value attentionStats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  DecodedProblem decoded;
  if (!decoded.decode(env, Span::from(env, info[0]))) return env.Undefined();
  decoded.problem.valueDim = 0;  // so that no extent of v and out is asked for
  TensorSpans spans = TensorSpans::from(info, 1);
  if (!decoded.attach(env, spans)) return env.Undefined();
  StatsOutput output{};
  if (!readOutput(info, 10, spans.lse, output)) {
    Napi::RangeError::New(env, "the memory of a result does not hold the statistics").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return statusValue(env, runStats(decoded.problem, output));
}

}  // namespace sdpa
