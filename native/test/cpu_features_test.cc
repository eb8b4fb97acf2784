#include "../runtime/cpu_features.h"

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "test.h"

namespace {

using sdpa::CpuFeatures;
using sdpa::cpuFeatures;

std::set<std::string> namesFound() {
  const char* names[64];
  const int count = sdpa::featureNames(names, 64);
  return {names, names + count};
}

TEST(cpuFeatures_impliedFeaturesHold) {
  const CpuFeatures& features = cpuFeatures();
  if (features.avx2) CHECK(features.avx);
  if (features.fma) CHECK(features.avx);
  if (features.avx512) CHECK(features.avx2);
  if (features.avx512Bf16 || features.avx512Fp16 || features.avx512Vnni) CHECK(features.avx512);
  if (features.amxBf16 || features.amxInt8) CHECK(features.amxTile);
  CHECK(!(features.neon && features.sse42));
#if defined(__aarch64__)
  CHECK(features.neon);
#endif
}

TEST(cpuFeatures_namesAreThoseOfTheFieldsAndRespectMax) {
  const std::set<std::string> names = namesFound();
  CHECK_EQ(names.count("avx2") == 1, cpuFeatures().avx2);
  CHECK_EQ(names.count("avx512") == 1, cpuFeatures().avx512);
  CHECK_EQ(names.count("neon") == 1, cpuFeatures().neon);
  const char* untouched = nullptr;
  CHECK_EQ(sdpa::featureNames(&untouched, 0), 0);
  CHECK(untouched == nullptr);
}

TEST(cpuFeatures_requestAmxAnswersTheSameTwice) {
  CHECK_EQ(sdpa::requestAmx(), sdpa::requestAmx());
  if (!cpuFeatures().amxTile) CHECK(!sdpa::requestAmx());
}

TEST(cpuFeatures_cacheSizesArePlausible) {
  const CpuFeatures& features = cpuFeatures();
  if (features.l1dBytes != 0) CHECK(features.l1dBytes >= 4096 && features.l1dBytes <= 1 << 20);
  if (features.l2Bytes != 0) CHECK(features.l2Bytes >= features.l1dBytes && features.l2Bytes <= 1 << 28);
}

#if defined(__linux__) && defined(__x86_64__)
// The kernel's own list, which it also cuts to what it saves at a context switch.
TEST(cpuFeatures_agreeWithTheKernel) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  std::string line;
  while (flags.empty() && std::getline(file, line)) {
    if (line.compare(0, 5, "flags") != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) flags.insert(word);
  }
  if (flags.empty()) return;  // no /proc here
  const auto has = [&](const char* flag) { return flags.count(flag) == 1; };
  const CpuFeatures& features = cpuFeatures();
  CHECK_EQ(features.sse42, has("sse4_2"));
  CHECK_EQ(features.avx, has("avx"));
  CHECK_EQ(features.fma, has("fma"));
  CHECK_EQ(features.f16c, has("f16c"));
  CHECK_EQ(features.avx2, has("avx2"));
  CHECK_EQ(features.avx512, has("avx512f") && has("avx512bw") && has("avx512cd") && has("avx512dq") && has("avx512vl"));
  CHECK_EQ(features.bmi, has("bmi1") && has("bmi2") && has("abm"));
  CHECK_EQ(features.avx512Vnni, has("avx512_vnni"));
  CHECK_EQ(features.avx512Bf16, has("avx512_bf16"));
  CHECK_EQ(features.avx512Fp16, has("avx512_fp16"));
  CHECK_EQ(features.amxTile, has("amx_tile"));
  CHECK_EQ(features.amxBf16, has("amx_bf16"));
  CHECK_EQ(features.amxInt8, has("amx_int8"));
}
#endif

}  // namespace
