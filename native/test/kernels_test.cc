// The kernels of every ISA of this machine against naive float64, straight through the kernel table.
#include "emulator.h"
#include "isas.h"
#include "naive_attention.h"
#include "run_kernels.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::kOpen;

void report(const AttentionCase& c, const char* isa, const char* kernel, const std::string& fault) {
  if (fault.empty()) return;
  sdpa::test::fail(__FILE__, __LINE__, std::string(isa) + " " + kernel + ": " + fault + "\n    " + describe(c));
}

// Both kernels of every ISA, where the inputs end at a guard page or begin after one (by the seed).
void check(const AttentionCase& c) {
  if (!isWorthwhile()) return;
  AttentionInstance instance(c, c.seed % 2 ? GuardSide::kAfter : GuardSide::kBefore);
  const Expected expected = expectedOf(instance);
  for (const Isa& isa : isas()) {
    instance.clearOutputs();
    runPrefill(isa.kernels, instance.problem, c.seed % 3 ? 4096 : isa.kernels.tileRows);
    report(c, isa.kernels.isa, "prefill", faultOf(instance, expected));
    if (!isDecodable(instance.problem)) continue;
    instance.clearOutputs();
    runDecode(isa.kernels, instance.problem);
    report(c, isa.kernels.isa, "decode", faultOf(instance, expected));
  }
}

AttentionCase caseOf(int64_t qLen, int64_t kvLen, uint64_t seed) {
  AttentionCase c;
  c.sequences = {{qLen, kvLen}};
  c.headDim = 20;
  c.valueDim = 24;
  c.seed = seed;
  return c;
}

// Where tiles, blocks and chunks of some ISA begin and end.
std::vector<int64_t> edges(bool ofRows) {
  std::vector<int64_t> lengths = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65};
  if (!ofRows) lengths.insert(lengths.end(), {127, 128, 129, 255, 256, 257, 263, 511, 512, 513, 521, 1031});
  for (const Isa& isa : isas()) {
    for (int64_t tiles = 1; ofRows && tiles <= 2; ++tiles) {
      for (int64_t step = -1; step <= 1; ++step) lengths.push_back(isa.kernels.tileRows * tiles + step);
    }
  }
  return lengths;
}

TEST(kernels_keyEdges) {
  uint64_t seed = 0;
  for (int64_t kvLen : edges(false)) {
    for (int64_t qLen : {1, 5, 26}) {
      AttentionCase c = caseOf(qLen, kvLen, ++seed);
      if (seed % 2) c.windowRight = 0;
      check(c);
    }
  }
}

TEST(kernels_rowEdges) {
  uint64_t seed = 0;
  for (int64_t qLen : edges(true)) {
    for (int64_t groupSize : {1, 3}) {
      AttentionCase c = caseOf(qLen, 41, ++seed);
      c.groupSize = groupSize;
      if (groupSize == 1) c.windowRight = 0;
      check(c);
    }
  }
}

TEST(kernels_largeCausal) {
  AttentionCase c = caseOf(300, 555, 1);
  c.windowRight = 0;
  c.headDim = c.valueDim = 64;
  c.numKvHeads = 1;
  check(c);
}

TEST(kernels_headDims) {
  uint64_t seed = 0;
  const std::vector<int64_t> dims = {1, 3, 8, 15, 16, 17, 40, 64, 80, 128, 130, 192, 256, 576};
  for (size_t i = 0; i < dims.size(); ++i) {
    for (int64_t valueDim : {dims[i], dims[(i + 5) % dims.size()]}) {
      for (int64_t qLen : {3, 29}) {
        AttentionCase c = caseOf(qLen, 70, ++seed);
        c.headDim = dims[i];
        c.valueDim = valueDim;
        c.numKvHeads = 1;
        c.padding = seed % 2 ? 0 : 3;
        check(c);
      }
    }
  }
}

TEST(kernels_groupSizes) {
  uint64_t seed = 0;
  for (int64_t groupSize : {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 48}) {
    for (int64_t qLen : {1, 3, 13}) {
      AttentionCase c = caseOf(qLen, 90, ++seed);
      c.groupSize = groupSize;
      c.windowRight = 0;
      c.alibi = true;
      c.sinks = true;
      check(c);
    }
  }
}

using Option = void (*)(AttentionCase&);

const Option kOptions[] = {
    [](AttentionCase& c) { c.windowRight = 0; },
    [](AttentionCase& c) { c.windowLeft = 40; },
    [](AttentionCase& c) { c.windowLeft = 9, c.windowRight = 3, c.sinkTokens = 5; },
    [](AttentionCase& c) { c.windowLeft = 0, c.windowRight = 0; },
    [](AttentionCase& c) { c.offsetShift = -c.sequences[0].kvLen - 3, c.windowRight = 0; },  // rows that see nothing
    [](AttentionCase& c) { c.offsetShift = 20; },
    [](AttentionCase& c) { c.softcap = 1.5f, c.scoreScale = 3.0f; },
    [](AttentionCase& c) { c.alibi = true; },
    [](AttentionCase& c) { c.bias = Operand::kFull; },
    [](AttentionCase& c) { c.bias = Operand::kFull, c.biasDType = sdpa::kFloat16; },
    [](AttentionCase& c) { c.bias = Operand::kOneRow, c.biasDType = sdpa::kBFloat16; },
    [](AttentionCase& c) { c.bias = Operand::kOneKey; },
    [](AttentionCase& c) { c.mask = Operand::kFull; },
    [](AttentionCase& c) { c.mask = Operand::kOneKey; },
    [](AttentionCase& c) { c.mask = Operand::kOneRow; },
    [](AttentionCase& c) { c.sinks = true; },
    [](AttentionCase& c) { c.lse = false; },
    [](AttentionCase& c) { c.qDType = sdpa::kFloat16, c.kvDType = sdpa::kFloat16; },
    [](AttentionCase& c) { c.qDType = sdpa::kBFloat16, c.kvDType = sdpa::kBFloat16; },
    [](AttentionCase& c) { c.kvDType = sdpa::kBFloat16; },
    [](AttentionCase& c) { c.kvDType = sdpa::kInt8; },
    [](AttentionCase& c) { c.qDType = sdpa::kBFloat16, c.kvDType = sdpa::kInt8; },
    [](AttentionCase& c) { c.padding = 5; },
    [](AttentionCase& c) { c.sequences.push_back({3, 70}), c.sequences.push_back({c.sequences[0].qLen, 11}); },
    [](AttentionCase& c) { c.scoreScale = 60.0f; },
};

void checkPairs(int64_t qLen, int64_t kvLen) {
  uint64_t seed = 0;
  for (const Option& first : kOptions) {
    for (const Option* second = &first; second < std::end(kOptions); ++second) {
      AttentionCase c = caseOf(qLen, kvLen, ++seed);
      c.headDim = 8;
      c.valueDim = 11;
      first(c);
      (*second)(c);
      check(c);
    }
  }
}

TEST(kernels_pairsOfOptionsFewRows) { checkPairs(4, 600); }

TEST(kernels_pairsOfOptionsManyRows) { checkPairs(33, 290); }

TEST(kernels_noKeysAtAll) {
  for (int64_t qLen : {0, 1, 9, 70}) {
    for (bool sinks : {false, true}) {
      AttentionCase c = caseOf(qLen, 0, 1);
      c.sinks = sinks;
      c.windowRight = 0;
      check(c);
    }
  }
}

TEST(kernels_windowBeforeAndBehindAllKeys) {
  for (int64_t shift : {-1000, -40, 40, 1000, 100000}) {
    AttentionCase c = caseOf(10, 300, 1);
    c.windowLeft = 30;
    c.windowRight = 2;
    c.offsetShift = shift;
    check(c);
    c.sinkTokens = 7;
    check(c);
    c.mask = Operand::kFull;
    c.alibi = true;
    check(c);
  }
}

// Hugging Face masks by adding torch.finfo(dtype).min. All keys of a block may hold it, or all keys of a row.
TEST(kernels_hugeFiniteBias) {
  for (float huge : {-1e4f, -1e9f, -1e10f, -1e30f, -3.3895314e38f, -3.4028235e38f, 1e9f, 1e30f}) {
    for (int64_t qLen : {2, 30}) {
      AttentionCase c = caseOf(qLen, 700, 1);
      c.bias = Operand::kOneRow;
      for (int64_t hugeKeys : {1, 64, 256, 600, 700}) {
        if (!isWorthwhile()) continue;
        AttentionInstance instance(c);
        for (int64_t j = 0; j < 700; ++j) instance.bias.values->set(j, j < hugeKeys ? huge : 0.0f);
        const Expected expected = expectedOf(instance);
        for (const Isa& isa : isas()) {
          instance.clearOutputs();
          runPrefill(isa.kernels, instance.problem, 4096);
          const std::string where = " bias " + std::to_string(huge) + " on " + std::to_string(hugeKeys) + " keys: ";
          std::string fault = faultOf(instance, expected);
          report(c, isa.kernels.isa, "prefill", fault.empty() ? "" : where + fault);
          if (!isDecodable(instance.problem)) continue;
          instance.clearOutputs();
          runDecode(isa.kernels, instance.problem);
          fault = faultOf(instance, expected);
          report(c, isa.kernels.isa, "decode", fault.empty() ? "" : where + fault);
        }
      }
    }
  }
}

}  // namespace
