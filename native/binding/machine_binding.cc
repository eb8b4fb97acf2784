#include "binding/machine_binding.h"

#include <string.h>

#include <algorithm>
#include <string>
#include <vector>

#include "binding/arguments.h"
#include "binding/entry.h"
#include "runtime/cpu_features.h"
#include "runtime/dispatch.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

constexpr int kMaxNames = 64;
constexpr int64_t kPiece = 1 << 18;  // floats that one task of readProbe sums

Napi::Array namesOf(Napi::Env env, const char* const* names, int count) {
  Napi::Array array = Napi::Array::New(env, static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) array.Set(static_cast<uint32_t>(i), names[i]);
  return array;
}

// isas() -> names that this machine runs, best first
Napi::Value isas(const Napi::CallbackInfo& info) {
  const char* names[kMaxNames];
  return namesOf(info.Env(), names, availableIsas(names, kMaxNames));
}

Napi::Value activeIsa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), activeKernels().isa); }

// selectIsa(name) -> whether the machine has it; if not, nothing changes
Napi::Value selectIsa(const Napi::CallbackInfo& info) {
  const std::string name = info[0].As<Napi::String>().Utf8Value();
  return Napi::Boolean::New(info.Env(), selectKernels(name.c_str()));
}

Napi::Value features(const Napi::CallbackInfo& info) {
  const char* names[kMaxNames];
  return namesOf(info.Env(), names, featureNames(names, kMaxNames));
}

Napi::Value cpuBrand(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), cpuFeatures().brand); }

Napi::Value getNumThreads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), ThreadPool::shared().numThreads());
}

Napi::Value setNumThreads(const Napi::CallbackInfo& info) {
  ThreadPool::shared().setNumThreads(static_cast<int>(integerOf(info[0])));
  return info.Env().Undefined();
}

Napi::Value availableCoreCount(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), ThreadPool::availableCores());
}

// Runs a probe on each of `threads` threads; returns the FLOPs done by all together.
template <class Run>
Napi::Value sumOfProbes(const Napi::CallbackInfo& info, Run run) {
  struct Probe {
    int64_t iterations;
    Run run;
    std::vector<double> flops;
    std::vector<float> sinks;
  };
  const int threads = std::max(1, static_cast<int>(integerOf(info[1])));
  Probe probe{integerOf(info[0]), run, std::vector<double>(static_cast<size_t>(threads)),
              std::vector<float>(static_cast<size_t>(threads))};
  ThreadPool::shared().parallelFor(
      threads,
      [](void* context, int64_t task, int) {
        Probe& p = *static_cast<Probe*>(context);
        const size_t i = static_cast<size_t>(task);
        p.flops[i] = p.run(p.iterations, &p.sinks[i]);
      },
      &probe, {threads, nullptr});
  double total = 0;
  for (double flops : probe.flops) total += flops;
  return Napi::Number::New(info.Env(), total);
}

// fmaProbe(iterations, threads) -> FLOPs done by all threads together; the caller times it
Napi::Value fmaProbe(const Napi::CallbackInfo& info) { return sumOfProbes(info, activeKernels().fmaProbe); }

// The operands of tileProbe: bfloat16, uniform in +-1, none of them 0: processors run faster on zeros than on noise.
struct alignas(64) RandomTiles {
  uint16_t data[1024];

  RandomTiles() {
    uint32_t state = 1;
    for (uint16_t& element : data) {
      state = state * 1664525u + 1013904223u;  // Numerical Recipes, 7.1
      const float x = (static_cast<float>(state >> 9) + 0.5f) * 0x1p-22f - 1.0f;
      uint32_t bits;
      memcpy(&bits, &x, sizeof bits);
      element = static_cast<uint16_t>(bits >> 16);
    }
  }
};

// tileProbe(iterations, threads) -> FLOPs done by all threads together, 0 where the ISA in use has no tiles
Napi::Value tileProbe(const Napi::CallbackInfo& info) {
  static const RandomTiles tiles;
  const auto probe = activeKernels().tileProbe;
  if (!probe) return Napi::Number::New(info.Env(), 0);
  return sumOfProbes(info, [probe](int64_t iterations, float* sink) { return probe(iterations, tiles.data, sink); });
}

// readProbe(array, threads) -> a sum, so that the reads happen; the caller times it
Napi::Value readProbe(const Napi::CallbackInfo& info) {
  struct Probe {
    const float* data;
    int64_t count;
    std::vector<float> sums;
  };
  const Span span = Span::from(info.Env(), info[0]);
  const int threads = std::max(1, static_cast<int>(integerOf(info[1])));
  const int64_t count = span.length * span.elementBytes / 4;
  const int64_t tasks = (count + kPiece - 1) / kPiece;
  Probe probe{static_cast<const float*>(span.data), count, std::vector<float>(static_cast<size_t>(tasks))};
  ThreadPool::shared().parallelFor(
      tasks,
      [](void* context, int64_t task, int) {
        Probe& p = *static_cast<Probe*>(context);
        const int64_t begin = task * kPiece;
        const int64_t n = std::min(kPiece, p.count - begin);
        p.sums[static_cast<size_t>(task)] = activeKernels().readProbe(p.data + begin, static_cast<size_t>(n));
      },
      &probe, {threads, nullptr});
  double total = 0;
  for (float sum : probe.sums) total += static_cast<double>(sum);
  return Napi::Number::New(info.Env(), total);
}

}  // namespace

void exportMachine(Napi::Object exports) {
  exportFunction<isas>(exports, "isas");
  exportFunction<activeIsa>(exports, "activeIsa");
  exportFunction<selectIsa>(exports, "selectIsa");
  exportFunction<features>(exports, "features");
  exportFunction<cpuBrand>(exports, "cpuBrand");
  exportFunction<getNumThreads>(exports, "getNumThreads");
  exportFunction<setNumThreads>(exports, "setNumThreads");
  exportFunction<availableCoreCount>(exports, "availableCores");
  exportFunction<fmaProbe>(exports, "fmaProbe");
  exportFunction<tileProbe>(exports, "tileProbe");
  exportFunction<readProbe>(exports, "readProbe");
}

}  // namespace sdpa
