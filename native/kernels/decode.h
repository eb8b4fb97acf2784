// Decode: few query rows (groupSize * qLen <= kMaxDecodeRows) against a long run of keys.
//
// Memory bandwidth is the limit, so each byte of K and V is read once, for all rows of the query group. A task owns one
// chunk of kDecodeChunk keys of one KV head (Flash-Decoding's split of the keys, at fixed absolute boundaries, so that the
// number of threads changes no bit) and walks it in blocks of up to kDecodeBlock keys:
//
//   for each block of the chunk
//     scores[row][key] = q row . K row               // K in place, in its storage dtype: decode_scores.h
//     applyScorePasses(scores)                       // those of prefill, over a transposed copy; where there are any
//     softmaxRows(m, l, scores -> weights)           // decode_softmax.h
//     o[row] = o[row] * rescale + weights[row] V     // V in place: decode_values.h
//
// Bytes of one key: (D + Dv) * sizeof(T), once. FLOPs: 2 * rows * (D + Dv). Sums run over a block at most before they are
// added to o, which keeps rounding small at 100k keys. More rows than one register tile holds read a block from
// L1 and L2 again, and convert it again, beside the multiply-adds.
#pragma once

#include "../kernel_table.h"
#include "decode_softmax.h"
#include "decode_values.h"
#include "key_span.h"
#include "scores.h"

namespace sdpa {
namespace {

constexpr int64_t kDecodeBlockBytes = 32 << 10;  // of K in a block, at most

inline int64_t decodeBlockKeys(const Problem& problem) {
  const int64_t elementBytes = problem.kvDType == kFloat32 ? 4 : problem.kvDType == kInt8 ? 1 : 2;
  const int64_t rowBytes = problem.headDim * elementBytes;
  int64_t keys = kDecodeBlock;  // halved, so that blocks tile the runs of a cache
  while (keys > kPanel && keys * rowBytes > kDecodeBlockBytes) keys /= 2;
  return keys;
}

struct DecodeScratch {
  int64_t blockKeys;
  int64_t lanes;     // rows, rounded up to a vector
  int64_t depth;     // headDim, rounded up to a step of any Products
  int64_t channels;  // valueDim, likewise
  float *q, *o, *scores, *weights, *transposed, *product;
  float *queryUnits, *weightUnits;  // [rows]
  DecodeState state;

  DecodeScratch(const Problem& problem, int64_t rows, Arena& arena)
      : blockKeys(decodeBlockKeys(problem)),
        lanes(roundUp(rows, Vec::kWidth)),
        depth(roundUp(problem.headDim, 2 * Vec::kWidth)),
        channels(roundUp(problem.valueDim, 2 * Vec::kWidth)) {
    q = arena.take<float>(rows * depth);
    o = arena.take<float>(rows * channels);
    scores = arena.take<float>(lanes * kDecodeBlock);
    weights = arena.take<float>(rows * kDecodeBlock);
    transposed = arena.take<float>(lanes * kDecodeBlock);
    product = arena.take<float>(rows * channels);
    queryUnits = arena.take<float>(rows);
    weightUnits = arena.take<float>(rows);
    state = {arena.take<float>(lanes), arena.take<float>(rows * Vec::kWidth), arena.take<float>(lanes)};
  }
};

// to[column][toStride] <- from[row][fromStride] for rows and columns, multiples of the vector width.
inline void transposeScores(const float* from, int64_t fromStride, int64_t rows, int64_t columns, float* to,
                            int64_t toStride) {
  constexpr int W = Vec::kWidth;
  for (int64_t row = 0; row < rows; row += W) {
    for (int64_t column = 0; column < columns; column += W) {
      Vec block[W];
      for (int i = 0; i < W; ++i) block[i] = Vec::load(from + (row + i) * fromStride + column);
      Vec::transpose(block);
      for (int i = 0; i < W; ++i) block[i].store(to + (column + i) * toStride + row);
    }
  }
}

template <class Products>
struct Decode {
  using T = typename Products::Stored;
  using Query = typename Products::Query;
  using Weight = typename Products::Weight;
  using Probability = typename Products::Probability;

  const Problem& problem;
  const DecodeTask& task;
  const Sequence& sequence;
  int64_t rows;
  DecodeScratch scratch;
  bool careful;  // look at each block's product before it joins o

  Decode(const Problem& problem_, const DecodeTask& task_, Arena arena)
      : problem(problem_),
        task(task_),
        sequence(problem.sequences[task.sequence]),
        rows(sequence.qLen * problem.groupSize),
        scratch(problem, rows, arena),
        careful(false) {}

  Query* queries() const { return reinterpret_cast<Query*>(scratch.q); }
  Weight* weights() const { return reinterpret_cast<Weight*>(scratch.weights); }
  // Weights themselves, or aside.
  Probability* probabilities() const {
    return reinterpret_cast<Probability*>(Products::kHasUnits ? scratch.transposed : scratch.weights);
  }

  template <class Q>
  void packQuery() const {
    forEachRowGroup(rows, [&](auto group, int64_t first) {
      for (int64_t r = 0; r < group.kRows; ++r) {
        const RowIndex row = rowIndex(problem, task.kvHead, first + r);
        const Q* q = static_cast<const Q*>(problem.q) + sequence.qOffset + row.head * problem.qHeadStride +
                     row.query * problem.qRowStride;
        scratch.queryUnits[first + r] =
            Products::packQuery(q, problem.headDim, problem.scale, group.kRows * Products::kStep,
                                queries() + first * scratch.depth + r * Products::kStep);
      }
    });
  }

  void initialise() const {
    if (problem.qDType == kFloat32) packQuery<float>();
    if (problem.qDType == kFloat16) packQuery<Float16>();
    if (problem.qDType == kBFloat16) packQuery<BFloat16>();
    for (int64_t i = 0; i < rows * scratch.channels; ++i) scratch.o[i] = 0.0f;
    for (int64_t i = 0; i < rows * Vec::kWidth; ++i) scratch.state.l[i] = 0.0f;
    for (int64_t i = 0; i < scratch.lanes; ++i) scratch.state.m[i] = kNegativeInfinity;
  }

  void scoreKeys(const KeySpan<T>& span, int64_t count) const {
    const KeyBlock<Products> block{span.k, span.kRowStride, count, problem.headDim};
    const Lookahead ahead = Lookahead::of(span.k, span.kRowStride, problem.headDim);
    scoreBlock(block, queries(), scratch.depth, rows, ahead, scratch.scores);
    Products::finishScores(block, scratch.queryUnits, rows, scratch.scores);
  }

  void applyPasses(int64_t origin, int64_t count, const KeyHull& hull) const {
    const bool isMasked = problem.mask && origin + count > sequence.maskBegin;
    const bool isPlain = problem.softcap == 0.0f && !problem.alibiSlopes && !problem.bias && !isMasked;
    if (isPlain && hull.full(origin, origin + count)) return;
    const int64_t keys = roundUp(count, Vec::kWidth);
    transposeScores(scratch.scores, kDecodeBlock, scratch.lanes, keys, scratch.transposed, scratch.lanes);
    const ScoreTile tile{&problem, &sequence, task.kvHead, 0, rows, scratch.lanes, origin, 0, count, scratch.transposed};
    applyScorePasses(tile, hull);
    transposeScores(scratch.transposed, scratch.lanes, keys, scratch.lanes, scratch.scores, kDecodeBlock);
  }

  ValueBlock<Products> valuesOf(const KeySpan<T>& span, int64_t count, float* o, const float* rescale) const {
    return {span.v,  span.vRowStride,     count, problem.valueDim, weights(),
            rescale, scratch.weightUnits, o,     scratch.channels};
  }

  // o = o * rescale + weights V; rescale is used up.
  void addBlock(const KeySpan<T>& span, int64_t count, float* o, float* rescale) const {
    const ValueBlock<Products> block = valuesOf(span, count, o, rescale);
    addValues(block, rows, Lookahead::of(span.v, span.vRowStride, problem.valueDim), rescale);
  }

  // Whether every value of o or product is finite.
  bool allFinite(const float* values) const {
    Vec poison = Vec::zero();  // 0 * x is NaN exactly where x is not finite
    for (int64_t i = 0; i < rows * scratch.channels; i += Vec::kWidth) {
      poison = Vec::fma(Vec::load(values + i), Vec::zero(), poison);
    }
    return !hasNaN(poison);
  }

  // The product again, key by key, without the keys that a row does not see: 0 * NaN would spread a masked value. Rare.
  void multiplyVisible(int64_t origin, int64_t count) const {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t d = 0; d < problem.valueDim; ++d) {
        float sum = 0.0f;
        for (int64_t key = 0; key < count; ++key) {
          if (scratch.scores[row * kDecodeBlock + key] == kNegativeInfinity) continue;
          sum += scratch.weights[row * kDecodeBlock + key] *
                 toFloat(spanAt<T>(problem, sequence, task.kvHead, origin + key).v[d]);
        }
        scratch.product[row * scratch.channels + d] = sum;
      }
    }
  }

  void addCarefully(const KeySpan<T>& span, int64_t origin, int64_t count) const {
    float* factors = scratch.state.rescale;
    float kept[kMaxDecodeRows];
    for (int64_t row = 0; row < rows; ++row) kept[row] = factors[row];
    for (int64_t i = 0; i < rows * scratch.channels; ++i) scratch.product[i] = 0.0f;
    addBlock(span, count, scratch.product, factors);
    if (!allFinite(scratch.product)) multiplyVisible(origin, count);
    for (int64_t row = 0; row < rows; ++row) {
      const Vec factor = Vec::broadcast(kept[row]);
      for (int64_t i = row * scratch.channels; i < (row + 1) * scratch.channels; i += Vec::kWidth) {
        Vec::fma(Vec::load(scratch.o + i), factor, Vec::load(scratch.product + i)).store(scratch.o + i);
      }
    }
  }

  // Keys [origin, origin + count), all of one span.
  void attendBlock(const KeySpan<T>& span, int64_t origin, int64_t count, const KeyHull& hull) const {
    bringNear(span.v, span.vRowStride, count);
    scoreKeys(span, count);
    applyPasses(origin, count, hull);
    softmaxRows<Products>(scratch.scores, rows, count, scratch.state, probabilities());
    bringNear(span.k + count * span.kRowStride, span.kRowStride, count);
    Products::prepareWeights(valuesOf(span, count, scratch.o, scratch.state.rescale), rows, weights(), scratch.weightUnits,
                             scratch.transposed);
    if (careful) return addCarefully(span, origin, count);
    addBlock(span, count, scratch.o, scratch.state.rescale);
  }

  void walkKeys() const {
    const KeyHull hull = hullOf(problem, sequence, 0, sequence.qLen - 1);
    // At multiples of a block, wherever the first visible key lies: no block straddles two runs.
    const int64_t first = task.keyBegin / scratch.blockKeys * scratch.blockKeys;
    for (int64_t origin = first; origin < task.keyEnd; origin += scratch.blockKeys) {
      if (problem.cancelled && SDPA_READ_FLAG(problem.cancelled)) return;
      int64_t begin = maximum(origin, task.keyBegin), end = minimum(origin + scratch.blockKeys, task.keyEnd);
      hull.clip(begin, end);
      forEachSpan<T>(problem, sequence, task.kvHead, 0, begin, end, [&](const KeySpan<T>& span, int64_t from, int64_t to) {
        attendBlock(span, from, to - from, hull);
      });
    }
    Products::orderChannels(scratch.o, rows * scratch.channels);
  }

  void run() {
    initialise();
    walkKeys();
  }

  // Again, keeping masked values that are not finite out.
  void runCarefully() {
    careful = true;
    run();
  }

  void storePartial() const {
    for (int64_t row = 0; row < rows; ++row) {
      task.partial[row] = scratch.state.m[row];
      float l = 0.0f;
      for (int64_t i = 0; i < Vec::kWidth; ++i) l += scratch.state.l[row * Vec::kWidth + i];
      task.partial[rows + row] = l;
      float* out = task.partial + 2 * rows + row * problem.valueDim;
      for (int64_t d = 0; d < problem.valueDim; d += Vec::kWidth) {
        storeUpTo(Vec::load(scratch.o + row * scratch.channels + d), problem.valueDim - d, out + d);
      }
    }
  }
};

template <class T>
inline void decodeTask(const Problem& problem, const DecodeTask& task, void* scratch) {
  Decode<FusedProducts<T>> decode(problem, task, {static_cast<char*>(scratch), 0});
  decode.run();
  if (!decode.allFinite(decode.scratch.o)) decode.runCarefully();
  decode.storePartial();
}

inline size_t decodeScratchBytes(const Problem& problem, int64_t rows) {
  Arena arena{nullptr, 0};
  const DecodeScratch scratch(problem, rows, arena);
  (void)scratch;
  return arena.used;
}

inline void decode(const Problem& problem, const DecodeTask& task, void* scratchMemory) {
  if (problem.kvDType == kFloat32) decodeTask<float>(problem, task, scratchMemory);
  if (problem.kvDType == kFloat16) decodeTask<Float16>(problem, task, scratchMemory);
  if (problem.kvDType == kBFloat16) decodeTask<BFloat16>(problem, task, scratchMemory);
  if (problem.kvDType == kInt8) decodeTask<int8_t>(problem, task, scratchMemory);
}

}  // namespace
}  // namespace sdpa
