// The problem as it crosses from JavaScript: a flat array of numbers and typed arrays, each a lie perhaps. What decode and attach
// let pass is computed, on one of the ISAs; it must touch no byte beyond the arrays.
#include <stddef.h>

#include <vector>

#include "binding/arguments.h"
#include "fuzz/input.h"
#include "runtime/attention.h"
#include "runtime/stats.h"

namespace {

using namespace sdpa;
using fuzz::Input;
using fuzz::Memory;

struct WireProblem {
#define SDPA_DECLARE(name) double name;
  SDPA_PROBLEM_FIELDS(SDPA_DECLARE)
};
struct WireSequence {
  SDPA_SEQUENCE_FIELDS(SDPA_DECLARE)
#undef SDPA_DECLARE
};

constexpr double kMostProducts = 3e6;  // of one input, so that none takes long

// A tensor [heads, tokens of all sequences, dim], as long as it must be.
struct Layout {
  int64_t rowStride, headStride, length;

  Layout(Input& input, int64_t heads, int64_t tokens, int64_t dim) {
    rowStride = dim + input.below(3);
    headStride = tokens * rowStride + input.below(3);
    length = heads == 0 || tokens == 0 ? 0 : (heads - 1) * headStride + (tokens - 1) * rowStride + dim;
  }
};

// Spans over exact memory, some of them lying.
struct Operands {
  std::vector<std::unique_ptr<Memory>> memories;
  TensorSpans spans;

  void give(Input& input, Span& span, int64_t length, int64_t elementBytes) {
    int64_t count = length, bytes = elementBytes;
    if (input.one(16)) count = length - 1 - input.below(4);
    if (input.one(32)) count = 0;
    if (input.one(32)) bytes = int64_t{1} << input.below(4);
    if (count < 0) count = 0;
    const bool atPage = input.one(2);
    memories.push_back(std::make_unique<Memory>(static_cast<size_t>(count * bytes), atPage, memories.size()));
    memories.back()->fill(input.byte(), input.one(4), bytes);
    span.given = true;
    span.data = memories.back()->data();
    span.length = count;
    span.elementBytes = bytes;
  }
};

constexpr int64_t kDims[] = {16, 1, 2, 3, 8, 15, 17, 31, 32, 33, 64, 65, 80, 128};

// How much there is to compute; infinite where one input would take too long.
double productsOf(const Problem& p) {
  double products = 0;
  if (p.numHeads > 64 || p.headDim > 2048 || p.valueDim > 2048) return 1e300;
  for (int64_t s = 0; s < p.numSequences; ++s) {
    const double rows = static_cast<double>(p.sequences[s].qLen) * static_cast<double>(p.numHeads);
    products += rows * static_cast<double>(p.headDim + p.valueDim + 16) * (static_cast<double>(p.sequences[s].kvLen) + 1);
  }
  return products;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  fuzz::selectIsa(input);

  const int64_t numSequences = input.one(16) ? 0 : 1 + input.below(3);
  WireProblem wire{};
  std::vector<WireSequence> sequences(static_cast<size_t>(numSequences));
  const int64_t kvHeads = 1 + input.below(3), heads = kvHeads * (1 + input.below(9));
  const int64_t headDim = kDims[input.below(14)], valueDim = input.one(16) ? 0 : kDims[input.below(14)];
  int64_t totalQ = 0, totalK = 0, mostQ = 0, mostK = 0;
  for (WireSequence& s : sequences) {
    const int64_t qLen = input.one(8) ? input.below(80) : input.below(6);
    const int64_t kvLen = input.one(4) ? input.below(400) : input.below(40);
    s.qLen = static_cast<double>(qLen);
    s.kvLen = static_cast<double>(kvLen);
    s.queryOffset = s.kvLen - s.qLen + (input.one(4) ? static_cast<int8_t>(input.byte()) : 0);
    totalQ += qLen;
    totalK += kvLen;
    mostQ = qLen > mostQ ? qLen : mostQ;
    mostK = kvLen > mostK ? kvLen : mostK;
  }
  const DType qDType = static_cast<DType>(input.below(3)), kvDType = static_cast<DType>(input.below(3)), biasDType = static_cast<DType>(input.below(3));
  const Layout q(input, heads, totalQ, headDim), k(input, kvHeads, totalK, headDim), v(input, kvHeads, totalK, valueDim),
      out(input, heads, totalQ, valueDim), lse(input, heads, totalQ, 1);
  const bool wantsLse = input.one(2), masked = input.one(3), biased = input.one(3), sloped = input.one(3), sunk = input.one(3);
  wire = {static_cast<double>(numSequences), static_cast<double>(heads), static_cast<double>(kvHeads), static_cast<double>(headDim),
          static_cast<double>(valueDim), 0.125, input.one(3) ? 20.0 : 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  wire.windowLeft = input.one(3) ? static_cast<double>(input.below(80)) : 1.0 / 0.0;
  wire.windowRight = input.one(2) ? 0 : input.one(3) ? static_cast<double>(input.below(80)) : 1.0 / 0.0;
  wire.sinkTokens = input.one(4) ? static_cast<double>(input.below(9)) : 0;
  wire.threads = static_cast<double>(input.below(3));
  wire.precision = static_cast<double>(input.below(3));
  wire.qDType = qDType;
  wire.kvDType = kvDType;
  wire.biasDType = biasDType;
#define SDPA_STRIDES(name)                                    \
  wire.name##HeadStride = static_cast<double>(name.headStride); \
  wire.name##RowStride = static_cast<double>(name.rowStride);
  SDPA_STRIDES(q) SDPA_STRIDES(k) SDPA_STRIDES(v) SDPA_STRIDES(out) SDPA_STRIDES(lse)
#undef SDPA_STRIDES
  wire.maskKeyStride = wire.biasKeyStride = 1;
  wire.maskRowStride = wire.biasRowStride = static_cast<double>(mostK);
  wire.maskHeadStride = wire.biasHeadStride = static_cast<double>(mostK * mostQ);
  if (input.one(4)) wire.maskHeadStride = wire.biasHeadStride = 0;
  if (input.one(4)) wire.maskKeyStride = wire.biasKeyStride = 0;
  wire.alibiHeadStride = 1;
  const double maskBegin = input.one(4) ? static_cast<double>(input.below(40)) : 0;
  int64_t qRow = 0, kRow = 0, index = 0;
  for (WireSequence& s : sequences) {
    s.qOffset = static_cast<double>(qRow * q.rowStride);
    s.outOffset = static_cast<double>(qRow * out.rowStride);
    s.lseOffset = static_cast<double>(qRow * lse.rowStride);
    s.kOffset = static_cast<double>(kRow * k.rowStride);
    s.vOffset = static_cast<double>(kRow * v.rowStride);
    s.maskBegin = maskBegin;
    s.maskOffset = s.biasOffset = static_cast<double>(index++ * mostK * mostQ * heads);
    qRow += static_cast<int64_t>(s.qLen);
    kRow += static_cast<int64_t>(s.kvLen);
  }

  std::vector<double> fields(sizeof wire / sizeof(double));
  memcpy(fields.data(), &wire, sizeof wire);
  for (const WireSequence& s : sequences) {
    const double* first = reinterpret_cast<const double*>(&s);
    fields.insert(fields.end(), first, first + sizeof s / sizeof(double));
  }
  for (int64_t lies = input.one(2) ? 1 + input.below(3) : 0; lies > 0; --lies) {
    double& field = fields[static_cast<size_t>(input.below(static_cast<int64_t>(fields.size())))];
    field = input.one(2) ? field + static_cast<double>(static_cast<int8_t>(input.byte())) : input.number();
  }
  if (input.one(8) && numSequences > 0) {  // a length and its stride, whose product may be too large to count
    fields[offsetof(WireProblem, qRowStride) / sizeof(double)] = input.number();
    fields[(sizeof(WireProblem) + offsetof(WireSequence, qLen)) / sizeof(double)] = input.number();
  }
  if (input.one(16)) fields.resize(static_cast<size_t>(input.below(static_cast<int64_t>(fields.size()) + 1)));

  Operands operands;
  TensorSpans& spans = operands.spans;
  operands.give(input, spans.q, q.length, bytesOf(qDType));
  operands.give(input, spans.k, k.length, bytesOf(kvDType));
  operands.give(input, spans.v, v.length, bytesOf(kvDType));
  operands.give(input, spans.out, out.length, bytesOf(qDType));
  if (wantsLse) operands.give(input, spans.lse, lse.length, 4);
  if (masked) operands.give(input, spans.mask, numSequences * heads * mostQ * mostK, 1);
  if (biased) operands.give(input, spans.bias, numSequences * heads * mostQ * mostK, bytesOf(biasDType));
  if (sloped) operands.give(input, spans.alibiSlopes, heads, 4);
  if (sunk) operands.give(input, spans.sinks, heads, 4);

  // Doubles, not the vector's own memory, which may be longer.
  Memory flat(fields.size() * sizeof(double), false, 0);
  if (!fields.empty()) memcpy(flat.data(), fields.data(), flat.size());
  Span flatSpan;
  flatSpan.data = flat.data();
  flatSpan.length = static_cast<int64_t>(fields.size());
  flatSpan.elementBytes = 8;
  flatSpan.given = true;
  DecodedProblem decoded;
  if (!decoded.decode({}, flatSpan)) return 0;
  const bool forStats = wantsLse && input.one(4);
  if (forStats) decoded.problem.valueDim = 0;
  if (!decoded.attach({}, spans) || productsOf(decoded.problem) > kMostProducts) return 0;
  // Of a mask that speaks of no key nothing is checked and nothing read; its rows are reckoned all the same, wherever they lie.
  for (const Sequence& s : decoded.sequences) {
    if (spans.mask.given && s.maskBegin >= s.kvLen) return 0;
  }
  if (!forStats) {
    runAttention(decoded.problem);
    return 0;
  }
  const size_t results = static_cast<size_t>(spans.lse.length);
  Memory entropy(results * 4, false, 0), maxWeight(results * 4, false, 0), argmax(results * 4, false, 0), mass(results * 4, false, 0);
  StatsOutput output{};
  output.entropy = reinterpret_cast<float*>(entropy.data());
  output.maxWeight = reinterpret_cast<float*>(maxWeight.data());
  output.argmax = reinterpret_cast<int32_t*>(argmax.data());
  if (input.one(2)) {
    output.windowMass = reinterpret_cast<float*>(mass.data());
    output.massLeft = input.below(80);
    output.massRight = input.below(80);
    output.massSinkTokens = input.below(9);
  }
  runStats(decoded.problem, output);
  return 0;
}
