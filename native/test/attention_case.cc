#include "attention_case.h"

#include "../simd/half.h"
#include "emulator.h"

namespace sdpa {
namespace test {
namespace {

void placeSequences(AttentionInstance& a) {
  for (const Lengths& lengths : a.spec.sequences) {
    Sequence s{};
    s.qLen = lengths.qLen;
    s.kvLen = lengths.kvLen;
    s.queryOffset = s.kvLen - s.qLen + a.spec.offsetShift;
    s.qOffset = a.totalQ * a.q->rowStride;
    s.kOffset = a.totalK * a.k->rowStride;
    s.vOffset = a.totalK * a.v->rowStride;
    s.outOffset = a.totalQ * a.out->rowStride;
    s.lseOffset = a.totalQ;
    const int64_t index = static_cast<int64_t>(a.sequences.size());
    s.maskOffset = index * a.mask.sequenceStride;
    s.biasOffset = index * a.bias.sequenceStride;
    s.alibiOffset = index * a.numHeads();
    a.sequences.push_back(s);
    a.totalQ += s.qLen;
    a.totalK += s.kvLen;
  }
}

void fillScoreOperands(AttentionInstance& a, GuardSide side, Random& random) {
  if (a.bias.values) {
    Values& bias = *a.bias.values;
    for (size_t i = 0; i < bias.floats.size(); ++i) {
      if (isnan(bias.floats[i])) continue;
      bias.set(static_cast<int64_t>(i), random.below(16) == 0 ? -INFINITY : random.normal());
    }
  }
  if (!a.mask.values) return;
  const std::vector<float>& mask = a.mask.values->floats;
  a.maskBytes = std::make_unique<GuardedBuffer<uint8_t>>(mask.size(), side);
  for (size_t i = 0; i < mask.size(); ++i) {
    if (isnan(mask[i])) continue;
    const bool visible = random.below(4) != 0;
    a.mask.values->set(static_cast<int64_t>(i), visible ? 1.0f : 0.0f);
    (*a.maskBytes)[i] = visible;
  }
}

void describeTensors(AttentionInstance& a) {
  Problem& p = a.problem;
  p.q = a.q->values.bytes.data();
  p.k = a.k->values.bytes.data();
  p.v = a.v->values.bytes.data();
  p.out = a.out->values.bytes.data();
  p.lse = a.lse ? reinterpret_cast<float*>(a.lse->bytes.data()) : nullptr;
  p.bias = a.bias.values ? a.bias.values->bytes.data() : nullptr;
  p.mask = a.maskBytes ? a.maskBytes->data() : nullptr;
  p.alibiSlopes = a.alibi ? reinterpret_cast<const float*>(a.alibi->bytes.data()) : nullptr;
  p.sinks = a.sinks ? reinterpret_cast<const float*>(a.sinks->bytes.data()) : nullptr;
  p.qHeadStride = a.q->headStride;
  p.qRowStride = a.q->rowStride;
  p.kHeadStride = a.k->headStride;
  p.kRowStride = a.k->rowStride;
  p.vHeadStride = a.v->headStride;
  p.vRowStride = a.v->rowStride;
  p.outHeadStride = a.out->headStride;
  p.outRowStride = a.out->rowStride;
  p.lseHeadStride = a.totalQ;
  p.lseRowStride = 1;
  p.maskHeadStride = a.mask.headStride;
  p.maskRowStride = a.mask.rowStride;
  p.maskKeyStride = a.mask.keyStride;
  p.biasHeadStride = a.bias.headStride;
  p.biasRowStride = a.bias.rowStride;
  p.biasKeyStride = a.bias.keyStride;
  p.alibiHeadStride = 1;
}

void describeOptions(AttentionInstance& a) {
  const AttentionCase& c = a.spec;
  Problem& p = a.problem;
  p.numSequences = static_cast<int64_t>(a.sequences.size());
  p.numHeads = a.numHeads();
  p.numKvHeads = c.numKvHeads;
  p.groupSize = c.groupSize;
  p.headDim = c.headDim;
  p.valueDim = c.valueDim;
  p.scale = c.scoreScale / sqrtf(static_cast<float>(c.headDim));
  p.softcap = c.softcap;
  p.windowLeft = c.windowLeft;
  p.windowRight = c.windowRight;
  p.sinkTokens = c.sinkTokens;
  p.qDType = c.qDType;
  p.kvDType = c.kvDType;
  p.biasDType = c.biasDType;
  p.sequences = a.sequences.data();
}

}  // namespace

void Values::set(int64_t index, float value) {
  const size_t i = static_cast<size_t>(index);
  if (dtype == kFloat32) memcpy(bytes.data() + 4 * i, &value, 4);
  if (dtype == kFloat16) fromFloat(value, reinterpret_cast<Float16*>(bytes.data()) + i);
  if (dtype == kBFloat16) fromFloat(value, reinterpret_cast<BFloat16*>(bytes.data()) + i);
  floats[i] = get(index);
}

void Values::setRow(int64_t first, const std::vector<float>& numbers) {
  int8_t* row = reinterpret_cast<int8_t*>(bytes.data() + first);
  const int64_t dim = static_cast<int64_t>(numbers.size());
  quantiseRow(numbers.data(), dim, row);
  restoreRow(row, dim, floats.data() + first);
}

float Values::get(int64_t index) const {
  const size_t i = static_cast<size_t>(index);
  if (dtype == kFloat16) return toFloat(reinterpret_cast<const Float16*>(bytes.data())[i]);
  if (dtype == kBFloat16) return toFloat(reinterpret_cast<const BFloat16*>(bytes.data())[i]);
  float value;
  memcpy(&value, bytes.data() + 4 * i, 4);
  return value;
}

AttentionInstance::AttentionInstance(const AttentionCase& c, GuardSide wantedSide)
    : spec(c),
      bias(c, c.bias, c.biasDType, reliableSide(wantedSide)),
      mask(c, c.mask, kFloat32, reliableSide(wantedSide)) {
  const GuardSide side = reliableSide(wantedSide);
  int64_t tokensQ = 0, tokensK = 0;
  for (const Lengths& s : c.sequences) {
    tokensQ += s.qLen;
    tokensK += s.kvLen;
  }
  q = std::make_unique<TokenTensor>(c.qDType, numHeads(), tokensQ, c.headDim, c.padding, side);
  k = std::make_unique<TokenTensor>(c.kvDType, c.numKvHeads, tokensK, c.headDim, c.padding, side);
  v = std::make_unique<TokenTensor>(c.kvDType, c.numKvHeads, tokensK, c.valueDim, c.padding, side);
  out = std::make_unique<TokenTensor>(c.qDType, numHeads(), tokensQ, c.valueDim, c.padding, side);
  placeSequences(*this);

  Random random(c.seed);
  q->fill(numHeads(), tokensQ, c.headDim, random);
  k->fill(c.numKvHeads, tokensK, c.headDim, random);
  v->fill(c.numKvHeads, tokensK, c.valueDim, random);
  if (c.lse) lse = std::make_unique<Values>(kFloat32, numHeads() * tokensQ, side);
  const int64_t slopes = static_cast<int64_t>(sequences.size()) * numHeads();
  if (c.alibi) alibi = std::make_unique<Values>(kFloat32, slopes, side);
  for (int64_t i = 0; c.alibi && i < slopes; ++i) alibi->set(i, exp2f(-1.0f - 6.0f * random.uniform()));
  if (c.sinks) sinks = std::make_unique<Values>(kFloat32, numHeads(), side);
  for (int64_t h = 0; c.sinks && h < numHeads(); ++h) sinks->set(h, h == 1 ? -INFINITY : 2.0f * random.normal());
  fillScoreOperands(*this, side, random);
  describeOptions(*this);
  describeTensors(*this);
  clearOutputs();
}

}  // namespace test
}  // namespace sdpa
