// Prefill on bfloat16 tiles (AMX, or AVX-512 BF16): the same task, rows and key blocks as prefill.h, other operands.
//
// bfloat16 inputs are one slice. float32 inputs are cut into slices (simd/tile_unit.h): three give float32's own
// precision ('highest'), two more than TF32's ('high'), one bfloat16's ('medium'); float16 fits into two, exactly. A tile is 32
// query rows in 32 lanes; K tiles are natural rows, q tiles pairs of channels, so that scores come out as everywhere:
// [key][lanes]. Weights become tiles by laying two score rows side by side, lane by lane, without a shuffle.
//
// One slice (attendInBursts). The products are so fast that the softmax counts, so it is done while a burst of scores
// is in L1, and the weights go straight into tiles:
//
//   for each burst of 64 keys
//     scores = K qT                                  // unscaled
//     applyScorePasses(scores)
//     where a row's maximum passes m + 8: o and l are rescaled, m raised      // rarely; a weight is at most e^8
//     weights = 2^(scores * scale log2(e) - m log2(e)) as bfloat16; l += sums
//   oT += V^T weights                                // of all bursts since m was last raised
//
// Letting m lag changes nothing but the scale of o and l, which divides out (FlashAttention-4 does the same); m never
// lags by more than 8, however the scores grow. Two and three slices: scores of the whole block, updateSoftmax as in
// float32, weights cut into slices, o = o * rescale + V^T weights.
//
// Tiles flush subnormals and know no NaN that stays in its row, so each query tile and key block is looked at while it
// is packed (RangeCheck): where a number is out of range, that tile and that block meet in float32 (prefill.h). The
// choice depends on them alone, so that bits do not depend on how rows are dealt to tasks.
#pragma once

#include "prefill.h"
#include "tile_pack.h"

namespace sdpa {
namespace {

constexpr int64_t kBurst = 64;            // keys whose scores are in L1 together
constexpr float kMaximumLag = 8.0f;       // how far a score may pass m
constexpr float kLargeMaximum = 1024.0f;  // beyond it, scores meet m before they are scaled, as in float32
constexpr float kLog2E = 1.44269504f;
constexpr int64_t kBlockSteps = kKeyBlock / kTileEdge;

template <class Cut>
struct TilePrefill {
  static constexpr int kSlices = Cut::kSlices;
  static constexpr bool kInBursts = kSlices == 1;

  const Problem& problem;
  const bool separateLse;                     // l sums rounded weights, and somebody asks for the sum of the others
  PrefillRows rows;
  Float32Prefill exact;
  int64_t depthSteps, channelBlocks;
  float* qT;                                  // one tile, for `exact`
  uint16_t *q, *k, *v, *weights;              // tiles
  uint8_t* queryInRange;                      // [tiles of the task]
  float *scores, *product, *rescale;
  int64_t packedBegin = 0, packedEnd = 0;
  bool blockInRange = true, exactPacked = false;

  // `merged`: the rows are stored as partials, and are the same with and without lse.
  TilePrefill(const Problem& problem_, const PrefillTask& task, Arena& arena, bool merged)
      : problem(problem_),
        separateLse(kInBursts && (merged || problem_.lse)),
        rows(problem_, task, kTileEdge, kTileEdge, kTileEdge, arena),
        exact(rows, arena),
        depthSteps(roundUp(problem_.headDim, kTileEdge) / kTileEdge),
        channelBlocks(rows.channels / kTileEdge) {
    if (separateLse) rows.separateLseSum(arena);
    constexpr int64_t block = tileBlockElements<kSlices>();
    const int64_t tiles = roundUp(task.rowEnd - task.rowBegin, kTileEdge) / kTileEdge;
    qT = arena.take<float>(kTileEdge * problem.headDim);
    q = arena.take<uint16_t>(tiles * depthSteps * block);
    k = arena.take<uint16_t>(kBlockSteps * depthSteps * block);
    v = arena.take<uint16_t>(channelBlocks * kBlockSteps * block);
    weights = arena.take<uint16_t>(kBlockSteps * block);
    queryInRange = arena.take<uint8_t>(tiles);
    scores = arena.take<float>((kInBursts ? kBurst : kKeyBlock) * kTileEdge);
    product = arena.take<float>(kTileEdge * kTileEdge);
    rescale = arena.take<float>(kTileEdge);
  }

  uint16_t* queryTiles(const QueryTile& tile) const {
    return q + tile.lane / kTileEdge * depthSteps * tileBlockElements<kSlices>();
  }

  template <class T>
  void packQuery(const QueryTile& tile) const {
    const T* queryRows[kTileEdge];
    for (int64_t i = 0; i < kTileEdge; ++i) {
      queryRows[i] = i < tile.rows ? rows.queryRow<T>(tile.rowBegin + i) : nullptr;
    }
    RangeCheck range;
    packQueryTiles<kSlices>(queryRows, problem.headDim, scaleInQuery() ? problem.scale : 1.0f, queryTiles(tile), range);
    queryInRange[tile.lane / kTileEdge] = range.good();
    rows.prefetchQuery<T>(tile);
  }

  void pack(const QueryTile& tile) const {
    if (problem.qDType == kFloat32) packQuery<float>(tile);
    if (problem.qDType == kFloat16) packQuery<Float16>(tile);
    if (problem.qDType == kBFloat16) packQuery<BFloat16>(tile);
  }

  template <class T>
  bool packBlockOf(int64_t origin, int64_t begin, int64_t end) const {
    RangeCheck range;
    forEachSpan<T>(problem, rows.sequence, rows.task.kvHead, origin, begin, end,
                   [&](const KeySpan<T>& span, int64_t from, int64_t to) {
                     packKeyTiles<kSlices>(span.k, span.kRowStride, from, to, problem.headDim, k, range);
                     packValueTiles<kSlices>(span.v, span.vRowStride, from, to, problem.valueDim, v, range);
                   });
    return range.good();
  }

  void packBlock(int64_t origin, int64_t begin, int64_t end) {
    if (problem.kvDType == kFloat32) blockInRange = packBlockOf<float>(origin, begin, end);
    if (problem.kvDType == kFloat16) blockInRange = packBlockOf<Float16>(origin, begin, end);
    if (problem.kvDType == kBFloat16) blockInRange = packBlockOf<BFloat16>(origin, begin, end);
    if (problem.kvDType == kInt8) blockInRange = packBlockOf<int8_t>(origin, begin, end);
    packedBegin = begin;
    packedEnd = end;
    exactPacked = false;
  }

  void attend(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) {
    if (!blockInRange || !queryInRange[tile.lane / kTileEdge]) {
      attendExactly(tile, origin, begin, end);
    } else if constexpr (kInBursts) {
      attendInBursts(tile, origin, begin, end);
    } else {
      attendInSlices(tile, origin, begin, end);
    }
  }

  void attendExactly(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) {
    if (!exactPacked) exact.packBlock(origin, packedBegin, packedEnd);
    exactPacked = true;
    exact.packQuery(tile, qT);
    if (!separateLse) return exact.attend(tile, qT, origin, begin, end);
    float before[kTileEdge];
    memcpy(before, tile.l, sizeof before);
    exact.attend(tile, qT, origin, begin, end);
    for (int64_t lane = 0; lane < kTileEdge; ++lane) {
      const float factor = exact.rescale[lane];
      tile.lseSum[lane] = tile.lseSum[lane] * factor + (tile.l[lane] - before[lane] * factor);
    }
  }

  // A tile of up to 16 rows needs the lower half of its lanes only.
  static int halvesOf(const QueryTile& tile) { return tile.rows > Vec::kWidth ? 2 : 1; }
  static int64_t lanesOf(const QueryTile& tile) { return halvesOf(tile) * Vec::kWidth; }

  // Scores of keys [begin, end), multiples of kTileEdge, to `out`.
  void multiplyKeys(const QueryTile& tile, int64_t begin, int64_t end, float* out) const {
    constexpr int64_t block = tileBlockElements<kSlices>();
    for (int64_t key = begin; key < end; key += kTileEdge) {
      TileUnit::multiply<Cut>({k + key / kTileEdge * depthSteps * block, block, queryTiles(tile), block, depthSteps, halvesOf(tile),
                                   out + (key - begin) * kTileEdge, false});
    }
  }

  // The product of one block of 32 channels with the weights of keys [begin, end), multiples of kTileEdge.
  TileProduct productOfValues(const QueryTile& tile, int64_t channelBlock, int64_t begin, int64_t end, float* c,
                              bool accumulate) const {
    constexpr int64_t block = tileBlockElements<kSlices>();
    const int64_t step = begin / kTileEdge;
    return {v + (channelBlock * kBlockSteps + step) * block, block, weights + step * block, block,
            (end - begin) / kTileEdge, halvesOf(tile), c, accumulate};
  }

  // float32 numbers are scaled before they are cut; fewer bits stay as they are, and their scores are scaled.
  bool scaleInQuery() const { return problem.qDType == kFloat32 && !kInBursts; }

  // Whether bursts scale their scores in a pass; otherwise the scale rides on the exponent.
  bool scalesFirst() const {
    return problem.softcap != 0.0f || problem.alibiSlopes || problem.bias ||
           !(problem.scale > 1e-30f && problem.scale < 1e30f);
  }

  void applyScale(const ScoreTile& tile) const {
    const Vec scale = Vec::broadcast(problem.scale);
    for (int64_t i = tile.begin * tile.lanes; i < tile.end * tile.lanes; i += Vec::kWidth) {
      (Vec::load(tile.scores + i) * scale).store(tile.scores + i);
    }
  }

  // Rounding to slices is an addition to the bits, which a NaN of all ones does not survive; a tensor may bring one.
  void makeNaNPlain(const ScoreTile& tile) const {
    if (!problem.bias && !problem.alibiSlopes) return;
    const Vec nan = Vec::broadcast(NAN);
    for (int64_t i = tile.begin * tile.lanes; i < tile.end * tile.lanes; i += Vec::kWidth) {
      const Vec score = Vec::load(tile.scores + i);
      Vec::select(score == score, score, nan).store(tile.scores + i);
    }
  }

  void attendInBursts(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    const bool scaled = scalesFirst();
    const float scale = scaled ? 1.0f : problem.scale;
    const int64_t first = begin / kTileEdge * kTileEdge, last = roundUp(end, kTileEdge);
    int64_t pending = first;  // keys whose weights have not met V begin here
    for (int64_t burst = first; burst < last;) {
      const int64_t burstEnd = minimum(last, (burst / kBurst + 1) * kBurst);
      const int64_t from = maximum(begin - burst, 0), to = minimum(end, burstEnd) - burst;
      multiplyKeys(tile, burst, burstEnd, scores);
      const ScoreTile scoreTile{&problem,       &rows.sequence, rows.task.kvHead, tile.rowBegin, tile.rows, kTileEdge,
                                origin + burst, from,           to,               scores};
      if (scaled) applyScale(scoreTile);
      applyScorePasses(scoreTile, tile.hull);
      makeNaNPlain(scoreTile);
      fillScores(0, from, kNegativeInfinity);  // keys that this tile does not see
      fillScores(to, burstEnd - burst, kNegativeInfinity);
      if (raiseMaximum(tile, from, to, scale)) {
        multiplyValues(tile, pending, burst);
        rescaleOutput(tile);
        pending = burst;
      }
      writeWeights(tile, burst, burstEnd - burst, scale);
      burst = burstEnd;
    }
    multiplyValues(tile, pending, last);
  }

  void fillScores(int64_t begin, int64_t end, float value) const {
    for (int64_t i = begin * kTileEdge; i < end * kTileEdge; ++i) scores[i] = value;
  }

  // Raises m where the scores of a burst pass it by kMaximumLag, and l with it; `rescale` becomes the factor for o.
  // Returns whether any row was raised.
  bool raiseMaximum(const QueryTile& tile, int64_t from, int64_t to, float scale) const {
    bool raised = false;
    for (int64_t lane = 0; lane < lanesOf(tile); lane += Vec::kWidth) {
      Vec top0 = Vec::broadcast(kNegativeInfinity), top1 = top0, top2 = top0, top3 = top0;
      int64_t key = from;
      for (; key + 4 <= to; key += 4) {
        const float* place = scores + key * kTileEdge + lane;
        top0 = Vec::max(Vec::load(place), top0);
        top1 = Vec::max(Vec::load(place + kTileEdge), top1);
        top2 = Vec::max(Vec::load(place + 2 * kTileEdge), top2);
        top3 = Vec::max(Vec::load(place + 3 * kTileEdge), top3);
      }
      for (; key < to; ++key) top0 = Vec::max(Vec::load(scores + key * kTileEdge + lane), top0);
      const Vec top = Vec::max(Vec::max(top0, top1), Vec::max(top2, top3)) * Vec::broadcast(scale);
      const Vec m = Vec::load(tile.m + lane);
      const Mask passes = m + Vec::broadcast(kMaximumLag) < top;
      const Vec after = Vec::select(passes, top, m);
      const Vec factor = Vec::select(passes, exp(m - finiteMaximum(after)), Vec::broadcast(1.0f));
      after.store(tile.m + lane);
      factor.store(rescale + lane);
      (Vec::load(tile.l + lane) * factor).store(tile.l + lane);
      if (separateLse) (Vec::load(tile.lseSum + lane) * factor).store(tile.lseSum + lane);
      raised = raised || any(passes);
    }
    return raised;
  }

  void rescaleOutput(const QueryTile& tile) const {
    const Vec factor0 = Vec::load(rescale), factor1 = Vec::load(rescale + Vec::kWidth);
    for (int64_t i = 0; i < rows.channels * kTileEdge; i += kTileEdge) {
      (Vec::load(tile.oT + i) * factor0).store(tile.oT + i);
      (Vec::load(tile.oT + i + Vec::kWidth) * factor1).store(tile.oT + i + Vec::kWidth);
    }
  }

  // Weights of `keys` keys, a multiple of kTileEdge, from key `burst` of the block on; their sums join l.
  void writeWeights(const QueryTile& tile, int64_t burst, int64_t keys, float scale) const {
    for (int half = 0; half < halvesOf(tile); ++half) {
      if (separateLse) {
        writeWeightsOf<true>(tile, half, burst, keys, scale);
      } else {
        writeWeightsOf<false>(tile, half, burst, keys, scale);
      }
    }
  }

  // l sums the weights as they were rounded, so that a row's rounding errors mostly divide out; lse needs them unrounded.
  template <bool kWithLse>
  void writeWeightsOf(const QueryTile& tile, int half, int64_t burst, int64_t keys, float scale) const {
    const int64_t lane = half * Vec::kWidth;
    const Vec m = finiteMaximum(Vec::load(tile.m + lane));
    if (any(Vec::broadcast(kLargeMaximum) < Vec::abs(m))) {
      // score * scale - m loses nothing near the maximum; one multiply-add would keep bits of the product that m lost.
      const Vec factor = Vec::broadcast(scale), log2E = Vec::broadcast(kLog2E);
      sumWeights<kWithLse>(tile, half, burst, keys, [&](Vec score) { return (score * factor - m) * log2E; });
    } else {
      const Vec factor = Vec::broadcast(scale * kLog2E), origin = m * Vec::broadcast(-kLog2E);
      sumWeights<kWithLse>(tile, half, burst, keys, [&](Vec score) { return Vec::fma(score, factor, origin); });
    }
  }

  template <bool kWithLse, class Exponent>
  SDPA_ALWAYS_INLINE void sumWeights(const QueryTile& tile, int half, int64_t burst, int64_t keys,
                                     Exponent exponent) const {
    const int64_t lane = half * Vec::kWidth;
    Vec sum0 = Vec::zero(), sum1 = Vec::zero(), exactSum = Vec::zero();
    for (int64_t key = 0; key < keys; key += 2) {
      const float* place = scores + key * kTileEdge + lane;
      const Vec even = exp2(exponent(Vec::load(place)));
      const Vec odd = exp2(exponent(Vec::load(place + kTileEdge)));
      const Slices<1> evenWeight = Slices<1>::roughlyOf(even), oddWeight = Slices<1>::roughlyOf(odd);
      storeWeightPair(evenWeight, oddWeight, key % kTileEdge / 2, half,
                      weights + (burst + key) / kTileEdge * tileBlockElements<1>());
      sum0 = sum0 + evenWeight.valueOf(0);
      sum1 = sum1 + oddWeight.valueOf(0);
      if (kWithLse) exactSum = exactSum + (even + odd);
    }
    (Vec::load(tile.l + lane) + (sum0 + sum1)).store(tile.l + lane);
    if (kWithLse) (Vec::load(tile.lseSum + lane) + exactSum).store(tile.lseSum + lane);
  }

  void multiplyValues(const QueryTile& tile, int64_t begin, int64_t end) const {
    if (begin >= end) return;
    for (int64_t block = 0; block < channelBlocks; ++block) {
      TileUnit::multiply<Cut>(productOfValues(tile, block, begin, end, tile.oT + block * kTileEdge * kTileEdge, true));
    }
  }

  void attendInSlices(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    const int64_t first = begin / kTileEdge * kTileEdge, last = roundUp(end, kTileEdge);
    multiplyKeys(tile, first, last, scores + first * kTileEdge);
    const ScoreTile scoreTile{&problem, &rows.sequence, rows.task.kvHead, tile.rowBegin, tile.rows, kTileEdge,
                              origin,   begin,          end,              scores};
    if (!scaleInQuery()) applyScale(scoreTile);
    applyScorePasses(scoreTile, tile.hull);
    makeNaNPlain(scoreTile);
    float maxima[kTileEdge];
    memcpy(maxima, tile.m, sizeof maxima);
    raiseMaxima(halvesOf(tile), scores, kTileEdge, begin, end, maxima);
    updateSoftmax(halvesOf(tile), {scores, scores, kTileEdge, begin, end, maxima, tile.m, tile.l, rescale});
    fillScores(first, begin, 0.0f);
    fillScores(end, last, 0.0f);
    sliceWeights(tile, first, last);
    for (int64_t block = 0; block < channelBlocks; ++block) {
      TileUnit::multiply<Cut>(productOfValues(tile, block, first, last, product, false));
      addProduct(tile.oT + block * kTileEdge * kTileEdge);
    }
  }

  void sliceWeights(const QueryTile& tile, int64_t begin, int64_t end) const {
    for (int64_t key = begin; key < end; key += 2) {
      uint16_t* step = weights + key / kTileEdge * tileBlockElements<kSlices>();
      for (int half = 0; half < halvesOf(tile); ++half) {
        const float* place = scores + key * kTileEdge + half * Vec::kWidth;
        storeWeightPair(Slices<kSlices>::roughlyOf(Vec::load(place)), Slices<kSlices>::roughlyOf(Vec::load(place + kTileEdge)),
                        key % kTileEdge / 2, half, step);
      }
    }
  }

  // o = o * rescale + product, for 32 channels.
  void addProduct(float* oT) const {
    const Vec factor0 = Vec::load(rescale), factor1 = Vec::load(rescale + Vec::kWidth);
    for (int64_t i = 0; i < kTileEdge * kTileEdge; i += kTileEdge) {
      const int64_t j = i + Vec::kWidth;
      Vec::fma(Vec::load(oT + i), factor0, Vec::load(product + i)).store(oT + i);
      Vec::fma(Vec::load(oT + j), factor1, Vec::load(product + j)).store(oT + j);
    }
  }
};

}  // namespace
}  // namespace sdpa
