// What the kernels must not read, write, notice or depend on. All tensors of a case touch guard pages, and what lies
// between rows, behind kvLen and in scratch holds NaN in every test of kernels_test.cc too.
#include "emulator.h"
#include "isas.h"
#include "naive_attention.h"
#include "run_kernels.h"
#include "test.h"

namespace {

using namespace sdpa::test;
using sdpa::Problem;

AttentionCase caseOf(int64_t qLen, int64_t kvLen) {
  AttentionCase c;
  c.sequences = {{qLen, kvLen}};
  c.headDim = 12;
  c.valueDim = 21;
  c.padding = 2;
  return c;
}

std::vector<AttentionCase> casesWithHiddenKeys() {
  std::vector<AttentionCase> cases;
  for (int64_t qLen : {3, 40}) {
    AttentionCase c = caseOf(qLen, 610);
    c.windowRight = 0;
    cases.push_back(c);
    c.sequences = {{qLen, 610}, {qLen, 33}};
    c.windowLeft = 100;
    c.windowRight = 4;
    c.sinkTokens = 6;
    cases.push_back(c);
    c = caseOf(qLen, 300);
    c.mask = Operand::kFull;
    cases.push_back(c);
    c.mask = Operand::kOneRow;
    c.kvDType = sdpa::kBFloat16;
    cases.push_back(c);
    c.mask = Operand::kNone;
    c.bias = Operand::kFull;
    c.kvDType = sdpa::kFloat16;
    cases.push_back(c);
    c.softcap = 2.0f;
    c.alibi = true;
    c.windowRight = -20;
    cases.push_back(c);
    c = caseOf(qLen, 610);
    c.windowRight = 0;
    c.qDType = c.kvDType = sdpa::kBFloat16;
    cases.push_back(c);
  }
  return cases;
}

// Runs both kernels of every ISA and holds out and lse against `expected`.
void checkAll(AttentionInstance& instance, const std::string& what) {
  if (!isWorthwhile()) return;
  const Expected expected = expectedOf(instance);
  for (const Isa& isa : isas()) {
    const auto checkFault = [&](const char* kernel) {
      const std::string fault = faultOf(instance, expected);
      if (fault.empty()) return;
      sdpa::test::fail(__FILE__, __LINE__, what + ": " + isa.kernels.isa + " " + kernel + ": " + fault + "\n    " +
                                               describe(instance.spec));
    };
    instance.clearOutputs();
    runPrefill(isa.kernels, instance.problem, 4096);
    checkFault("prefill");
    if (!isDecodable(instance.problem)) continue;
    instance.clearOutputs();
    runDecode(isa.kernels, instance.problem);
    checkFault("decode");
  }
}

// One non-finite value in a key of head 0.
void plant(TokenTensor& tensor, int64_t key, int64_t dim, float value) {
  tensor.values.set(key * tensor.rowStride + key % dim, value);
}

TEST(kernelsMemory_nonFiniteValuesReachTheRowsThatSeeThemOnly) {
  for (const AttentionCase& c : casesWithHiddenKeys()) {
    for (float value : {NAN, INFINITY, -INFINITY}) {
      const int64_t kvLen = c.sequences[0].kvLen;
      for (const std::vector<int64_t>& keys :
           {std::vector<int64_t>{0}, {kvLen - 1}, {kvLen / 2, kvLen / 2 + 1}, {5, 17, 255, 256, kvLen - 2}}) {
        AttentionInstance instance(c);
        for (int64_t key : keys) plant(*instance.v, key, c.valueDim, value);
        checkAll(instance, "v holds " + std::to_string(value));
      }
    }
  }
}

TEST(kernelsMemory_nonFiniteKeysReachTheRowsThatSeeThemOnly) {
  for (const AttentionCase& c : casesWithHiddenKeys()) {
    for (float value : {NAN, INFINITY}) {
      for (int64_t key : {int64_t{0}, int64_t{130}, int64_t{257}, c.sequences[0].kvLen - 1}) {
        AttentionInstance instance(c);
        plant(*instance.k, key, c.headDim, value);
        plant(*instance.v, c.sequences[0].kvLen - 3, c.valueDim, -value);
        checkAll(instance, "k holds " + std::to_string(value));
      }
    }
  }
}

// Instructions for bfloat16 take subnormals for zero: numbers that only float32 gets right.
TEST(kernelsMemory_subnormalNumbersCount) {
  for (int64_t qLen : {1, 5, 40}) {
    AttentionCase c = caseOf(qLen, 300);
    c.headDim = 40;
    c.valueDim = 70;
    c.qDType = c.kvDType = sdpa::kBFloat16;
    Random random(7);
    const auto fill = [&](Values& values, float scale) {
      for (size_t i = 0; i < values.floats.size(); ++i) values.set(static_cast<int64_t>(i), scale * (1.5f + random.uniform()));
    };
    AttentionInstance smallValues(c);
    fill(smallValues.v->values, 1e-39f);
    checkAll(smallValues, "subnormal values");
    AttentionInstance smallQueries(c);
    fill(smallQueries.q->values, 1e-39f);
    fill(smallQueries.k->values, 1e38f);
    checkAll(smallQueries, "subnormal queries");
    AttentionInstance smallKeys(c);
    fill(smallKeys.q->values, 1e38f);
    fill(smallKeys.k->values, 1e-39f);
    checkAll(smallKeys, "subnormal keys");
    AttentionInstance zeros(c);
    fill(zeros.v->values, 0.0f);
    checkAll(zeros, "zeros");
  }
}

TEST(kernelsMemory_aKeyThatNobodySeesMayHoldAnything) {
  for (int64_t qLen : {2, 40}) {
    AttentionCase c = caseOf(qLen, 600);
    c.mask = Operand::kOneRow;
    AttentionInstance instance(c);
    for (int64_t j = 0; j < 600; ++j) {
      if (instance.mask.values->floats[static_cast<size_t>(j)] != 0.0f) continue;
      for (int64_t h = 0; h < c.numKvHeads; ++h) {
        for (int64_t d = 0; d < c.headDim; ++d) instance.k->values.set(instance.kRow(0, h, j) + d, NAN);
        for (int64_t d = 0; d < c.valueDim; ++d) instance.v->values.set(instance.vRow(0, h, j) + d, d % 2 ? NAN : INFINITY);
      }
    }
    const Expected expected = expectedOf(instance);
    for (double x : expected.out) CHECK(std::isfinite(x));
    checkAll(instance, "masked keys hold NaN");
  }
}

TEST(kernelsMemory_nanInAQueryOrABiasStaysInItsRow) {
  for (int64_t qLen : {4, 37}) {
    AttentionCase c = caseOf(qLen, 300);
    c.bias = Operand::kFull;
    c.mask = Operand::kFull;
    AttentionInstance instance(c);
    instance.q->values.set(instance.qRow(0, 1, 2) + 3, NAN);
    for (int64_t j : {7, 8, 9, 10, 11}) instance.bias.values->set(j, NAN);  // head 0, row 0: some masked, some not
    checkAll(instance, "q and bias hold NaN");
  }
}

std::vector<uint8_t> bytesOf(const GuardedBuffer<uint8_t>& buffer) { return {buffer.begin(), buffer.end()}; }

TEST(kernelsMemory_inputsAreNotWritten) {
  AttentionCase c = caseOf(12, 300);
  c.bias = c.mask = Operand::kFull;
  c.alibi = c.sinks = true;
  AttentionInstance a(c);
  const GuardedBuffer<uint8_t>* inputs[] = {&a.q->values.bytes, &a.k->values.bytes, &a.v->values.bytes,
                                            &a.bias.values->bytes, a.maskBytes.get(), &a.alibi->bytes,
                                            &a.sinks->bytes};
  std::vector<std::vector<uint8_t>> before;
  for (const auto* input : inputs) before.push_back(bytesOf(*input));
  for (const Isa& isa : isas()) {
    runPrefill(isa.kernels, a.problem, 4096);
    runDecode(isa.kernels, a.problem);
  }
  for (size_t i = 0; i < before.size(); ++i) CHECK(before[i] == bytesOf(*inputs[i]));
}

// The promise behind "the number of threads changes no bit": however rows are dealt to tasks, and whatever scratch held.
TEST(kernelsMemory_theCutOfRowsChangesNoBit) {
  for (bool causal : {false, true}) {
    AttentionCase c = caseOf(67, 520);
    c.groupSize = 3;
    c.sinks = true;
    if (causal) c.windowRight = 0, c.windowLeft = 300;
    AttentionInstance instance(c);
    for (const Isa& isa : isas()) {
      std::vector<uint8_t> out, lse;
      for (int64_t tiles : {1000, 1, 2, 3, 5}) {
        if (!out.empty() && !isWorthwhile()) continue;
        instance.clearOutputs();
        runPrefill(isa.kernels, instance.problem, tiles * isa.kernels.tileRows);
        if (out.empty()) {
          out = bytesOf(instance.out->values.bytes);
          lse = bytesOf(instance.lse->bytes);
        }
        CHECK(out == bytesOf(instance.out->values.bytes));
        CHECK(lse == bytesOf(instance.lse->bytes));
      }
    }
  }
}

// Bits of a row do not depend on the rows beside it: what a row sees in a long problem it sees alone.
TEST(kernelsMemory_rowsBesideItChangeNoBit) {
  AttentionCase c = caseOf(30, 300);
  c.groupSize = 1;
  AttentionInstance instance(c);
  for (const Isa& isa : isas()) {
    runPrefill(isa.kernels, instance.problem, 4096);
    const std::vector<uint8_t> all = bytesOf(instance.out->values.bytes);
    Problem last = instance.problem;
    sdpa::Sequence sequence = instance.sequences[0];
    sequence.qOffset += 29 * last.qRowStride;
    sequence.outOffset += 29 * last.outRowStride;
    sequence.lseOffset += 29;
    sequence.queryOffset += 29;
    sequence.qLen = 1;
    last.sequences = &sequence;
    instance.clearOutputs();
    runPrefill(isa.kernels, last, 4096);
    const size_t begin = static_cast<size_t>(instance.outRow(0, 0, 29)) * 4;
    const std::vector<uint8_t> alone = bytesOf(instance.out->values.bytes);
    CHECK(std::equal(all.begin() + static_cast<int64_t>(begin), all.begin() + static_cast<int64_t>(begin) + 4 * c.valueDim,
                     alone.begin() + static_cast<int64_t>(begin)));
  }
}

}  // namespace
