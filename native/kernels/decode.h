// Decode: few query rows (groupSize * qLen <= kMaxDecodeRows) against a long run of keys.
//
// Memory bandwidth is the limit, so each byte of K and V is read once, for all rows of the query group. A task owns one
// chunk of kDecodeChunk keys of one KV head (Flash-Decoding's split of the keys, at fixed absolute boundaries, so that the
// number of threads changes no bit) and walks it in blocks of kDecodeBlock:
//
//   for each block of the chunk
//     scores[key][row] = K row . q row               // K in place, in its storage dtype; prefetches the next block of K
//     applyScorePasses(scores)                       // the same passes as prefill: the tile has the same layout
//     updateSoftmax(m, l, scores -> weights)
//     o[row][Dv] = o * rescale + weights^T V         // V in place; prefetches the next block of V
//
// Bytes of one key: (D + Dv) * sizeof(T), once. FLOPs: 2 * rows * (D + Dv). The scores of a block take 64 * lanes floats,
// in L1. Sums run over one block at a time and are then added to o, which keeps rounding small at 100k keys.
#pragma once

#include "../kernel_table.h"
#include "gemm.h"
#include "online_softmax.h"
#include "scores.h"

namespace sdpa {
namespace {

constexpr int kRowGroup = 4;                               // query rows of a register tile, or all of them up to 6
constexpr int kKeyGroup = Vec::kRegisters >= 32 ? 4 : 2;   // keys of a register tile of scores
constexpr int kValueVecs = Vec::kRegisters >= 32 ? 4 : 2;  // vectors of channels of a register tile of o
constexpr int kPrefetchKeys = 32;                          // how far ahead of use K and V are asked for

constexpr int64_t kDecodeBlockBytes = 32 << 10;             // of K in a block; half of them where the rows are longer

template <int kCount>
struct RowCount {};

// fn(RowCount<n>, first row) for each register tile of rows. First rows are multiples of kRowGroup.
template <class Fn>
inline void forEachRowGroup(int64_t rows, Fn fn) {
  if (rows == 6) return fn(RowCount<6>{}, 0);
  if (rows == 5) return fn(RowCount<5>{}, 0);
  int64_t row = 0;
  for (; row + kRowGroup <= rows; row += kRowGroup) fn(RowCount<kRowGroup>{}, row);
  if (rows - row == 3) fn(RowCount<3>{}, row);
  if (rows - row == 2) fn(RowCount<2>{}, row);
  if (rows - row == 1) fn(RowCount<1>{}, row);
}

struct DecodeScratch {
  int64_t lanes;      // rows, rounded up to a vector
  int64_t depth;      // headDim, rounded up to a vector
  int64_t channels;   // valueDim, rounded up to a vector
  float *q, *o, *m, *l, *scores, *weights, *rescale, *tail, *product;

  DecodeScratch(const Problem& problem, int64_t rows, Arena& arena)
      : lanes(roundUp(rows, Vec::kWidth > kRowGroup ? Vec::kWidth : kRowGroup)),
        depth(roundUp(problem.headDim, Vec::kWidth)),
        channels(roundUp(problem.valueDim, Vec::kWidth)) {
    q = arena.take<float>(lanes * depth);
    o = arena.take<float>(lanes * channels);
    m = arena.take<float>(lanes);
    l = arena.take<float>(lanes);
    scores = arena.take<float>(kDecodeBlock * lanes);
    weights = arena.take<float>(kDecodeBlock * lanes);
    rescale = arena.take<float>(lanes);
    tail = arena.take<float>(kDecodeBlock * Vec::kWidth);
    product = arena.take<float>(lanes * channels);
  }
};

template <class T>
struct Decode {
  const Problem& problem;
  const DecodeTask& task;
  const Sequence& sequence;
  mutable const T *k, *v;  // row 0 of this head, as the span at hand has it
  int64_t rows;
  DecodeScratch scratch;
  bool careful;  // look at each block's product before it joins o

  template <class Q>
  void packQuery() const {
    for (int64_t r = 0; r < scratch.lanes; ++r) {
      float* out = scratch.q + r * scratch.depth;
      if (r >= rows) {
        for (int64_t d = 0; d < scratch.depth; ++d) out[d] = 0.0f;
        continue;
      }
      const RowIndex row = rowIndex(problem, task.kvHead, r);
      const Q* q = static_cast<const Q*>(problem.q) + sequence.qOffset + row.head * problem.qHeadStride +
                   row.query * problem.qRowStride;
      for (int64_t d = 0; d < problem.headDim; d += Vec::kWidth) {
        (loadUpTo(q + d, problem.headDim - d) * Vec::broadcast(problem.scale)).store(out + d);
      }
    }
  }

  void initialise() const {
    if (problem.qDType == kFloat32) packQuery<float>();
    if (problem.qDType == kFloat16) packQuery<Float16>();
    if (problem.qDType == kBFloat16) packQuery<BFloat16>();
    for (int64_t i = 0; i < scratch.lanes * scratch.channels; ++i) scratch.o[i] = 0.0f;
    for (int64_t i = 0; i < scratch.lanes; ++i) {
      scratch.m[i] = kNegativeInfinity;
      scratch.l[i] = 0.0f;
    }
    for (int64_t i = 0; i < kDecodeBlock * scratch.lanes; ++i) scratch.scores[i] = 0.0f;
  }

  // scores[key][row .. row + kRows) for kKeyGroup keys from `key` (relative to the block). The next block's keys are
  // asked for as this one's are read, one line at a time: in bursts, prefetches stall the loads behind them.
  template <int kRows>
  void scoreGroup(const T* const* keyRows, int64_t key, int64_t row) const {
    Vec acc[kKeyGroup][kRows];
SDPA_UNROLL
    for (int j = 0; j < kKeyGroup; ++j) {
SDPA_UNROLL
      for (int r = 0; r < kRows; ++r) acc[j][r] = Vec::zero();
    }
    const float* q = scratch.q + row * scratch.depth;
    const int64_t ahead = kPrefetchKeys * problem.kRowStride;
    const auto accumulate = [&](int64_t d, auto load) {
      Vec x[kKeyGroup];
SDPA_UNROLL
      for (int j = 0; j < kKeyGroup; ++j) {
        x[j] = load(keyRows[j] + d);
        if (row == 0) SDPA_PREFETCH_READ(keyRows[j] + d + ahead);
      }
SDPA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Vec y = Vec::load(q + r * scratch.depth + d);
SDPA_UNROLL
        for (int j = 0; j < kKeyGroup; ++j) acc[j][r] = Vec::fma(x[j], y, acc[j][r]);
      }
    };
    const int64_t whole = problem.headDim / Vec::kWidth * Vec::kWidth;
    for (int64_t d = 0; d < whole; d += Vec::kWidth) accumulate(d, [](const T* p) { return Vec::load(p); });
    const int rest = static_cast<int>(problem.headDim - whole);
    if (rest) accumulate(whole, [rest](const T* p) { return Vec::loadPartial(p, rest); });
SDPA_UNROLL
    for (int j = 0; j < kKeyGroup; ++j) {
      float* out = scratch.scores + (key + j) * scratch.lanes + row;
      const auto sums = [&](int r) { return r < kRows ? acc[j][r] : Vec::zero(); };
      Vec::reduceAdd4(sums(0), sums(1), sums(2), sums(3), out);
      if (kRows > 4) Vec::reduceAdd4(sums(4), sums(5), sums(6), sums(7), out + 4);
    }
  }

  void scoreBlock(int64_t origin, int64_t count) const {
    for (int64_t key = 0; key < count; key += kKeyGroup) {
      const T* keyRows[kKeyGroup];
      for (int j = 0; j < kKeyGroup; ++j) {  // the last group repeats its last key; nothing past it is read
        keyRows[j] = k + (origin + minimum(key + j, count - 1)) * problem.kRowStride;
      }
      forEachRowGroup(rows, [&](auto group, int64_t row) { scoreRows(group, keyRows, key, row); });
    }
  }

  template <int kRows>
  void scoreRows(RowCount<kRows>, const T* const* keyRows, int64_t key, int64_t row) const {
    scoreGroup<kRows>(keyRows, key, row);
  }

  // o[row .. row + kRows)[d .. d + kVecs * W) = o * rescale + weights^T x values; or, while careful, product = weights^T x
  // values.
  template <int kVecs, int kRows, class V>
  void multiplyValues(RowCount<kRows>, int64_t row, int64_t d, const V* values, int64_t stride, int64_t count) const {
    Accumulators<kRows, kVecs> acc;
    const auto prefetchAhead = [&](const V* p) {  // the next block's channels, once for all rows
      if (row == 0) prefetchForRead(p + kPrefetchKeys * stride, kVecs * Vec::kWidth * static_cast<int64_t>(sizeof(V)));
    };
    multiply(scratch.weights + row, scratch.lanes, values, stride, count, acc, prefetchAhead);
SDPA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = Vec::broadcast(scratch.rescale[row + r]);
SDPA_UNROLL
      for (int i = 0; i < kVecs; ++i) {
        const int64_t place = (row + r) * scratch.channels + d + i * Vec::kWidth;
        if (careful) {
          acc.raw[r][i].store(scratch.product + place);
        } else {
          Vec::fma(Vec::load(scratch.o + place), factor, acc.raw[r][i]).store(scratch.o + place);
        }
      }
    }
  }

  // The same for all rows, so that the channels of a block stay in L1 meanwhile.
  template <int kVecs, class V>
  void multiplyRows(int64_t d, const V* values, int64_t stride, int64_t count) const {
    forEachRowGroup(rows, [&](auto group, int64_t row) { multiplyValues<kVecs>(group, row, d, values, stride, count); });
  }

  void valueBlock(int64_t origin, int64_t count) const {
    constexpr int64_t W = Vec::kWidth;
    const T* values = v + origin * problem.vRowStride;
    const int64_t whole = problem.valueDim / W * W;
    if (whole < problem.valueDim) {  // a last, partial vector of channels is padded, so that nothing past a row is read
      for (int64_t key = 0; key < count; ++key) {
        const T* rest = values + key * problem.vRowStride + whole;
        Vec::loadPartial(rest, static_cast<int>(problem.valueDim - whole)).store(scratch.tail + key * W);
      }
    }
    int64_t d = 0;
    for (; d + kValueVecs * W <= whole; d += kValueVecs * W) {
      multiplyRows<kValueVecs>(d, values + d, problem.vRowStride, count);
    }
    for (; d < whole; d += W) multiplyRows<1>(d, values + d, problem.vRowStride, count);
    if (d < problem.valueDim) multiplyRows<1>(d, scratch.tail, W, count);
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
          if (scratch.scores[key * scratch.lanes + row] == kNegativeInfinity) continue;
          sum += scratch.weights[key * scratch.lanes + row] *
                 storedValue(problem, sequence, task.kvHead, origin + key, d);
        }
        scratch.product[row * scratch.channels + d] = sum;
      }
    }
  }

  void addProduct() const {
    for (int64_t row = 0; row < rows; ++row) {
      const Vec factor = Vec::broadcast(scratch.rescale[row]);
      for (int64_t i = row * scratch.channels; i < (row + 1) * scratch.channels; i += Vec::kWidth) {
        Vec::fma(Vec::load(scratch.o + i), factor, Vec::load(scratch.product + i)).store(scratch.o + i);
      }
    }
  }

  void attendBlock(int64_t origin, int64_t count, const KeyHull& hull) const {
    scoreBlock(origin, count);
    const ScoreTile tile{&problem, &sequence, task.kvHead, 0, rows, scratch.lanes, origin, 0, count, scratch.scores};
    applyScorePasses(tile, hull);
    for (int64_t lane = 0; lane < scratch.lanes; lane += Vec::kWidth) {
      updateSoftmax(scratch.scores + lane, scratch.weights + lane, scratch.lanes, 0, count, scratch.m + lane,
                    scratch.l + lane, scratch.rescale + lane);
    }
    valueBlock(origin, count);
    if (!careful) return;
    if (!allFinite(scratch.product)) multiplyVisible(origin, count);
    addProduct();
  }

  void walkKeys() const {
    const KeyHull hull = hullOf(problem, sequence, 0, sequence.qLen - 1);
    const int64_t bytes = problem.headDim * static_cast<int64_t>(sizeof(T));
    const int64_t blockKeys = bytes * kDecodeBlock > kDecodeBlockBytes ? kDecodeBlock / 2 : kDecodeBlock;
    int64_t next;
    for (int64_t origin = task.keyBegin; origin < task.keyEnd; origin = next) {
      if (problem.cancelled && *problem.cancelled) return;
      next = minimum(origin + blockKeys, task.keyEnd);
      int64_t begin = origin, end = next;
      hull.clip(begin, end);
      if (begin >= end) continue;
      const KeySpan<T> span = spanAt<T>(problem, sequence, task.kvHead, begin);
      k = span.k - begin * problem.kRowStride;
      v = span.v - begin * problem.vRowStride;
      if (span.end < end) next = end = span.end;
      attendBlock(begin, end - begin, hull);
    }
  }

  void storePartial() const {
    for (int64_t row = 0; row < rows; ++row) {
      task.partial[row] = scratch.m[row];
      task.partial[rows + row] = scratch.l[row];
      float* out = task.partial + 2 * rows + row * problem.valueDim;
      for (int64_t d = 0; d < problem.valueDim; d += Vec::kWidth) {
        storeUpTo(Vec::load(scratch.o + row * scratch.channels + d), problem.valueDim - d, out + d);
      }
    }
  }
};

template <class T>
inline void decodeTask(const Problem& problem, const DecodeTask& task, void* scratchMemory) {
  Arena arena{static_cast<char*>(scratchMemory), 0};
  const Sequence& sequence = problem.sequences[task.sequence];
  const int64_t rows = sequence.qLen * problem.groupSize;
  Decode<T> run{problem,
                task,
                sequence,
                static_cast<const T*>(problem.k) + sequence.kOffset + task.kvHead * problem.kHeadStride,
                static_cast<const T*>(problem.v) + sequence.vOffset + task.kvHead * problem.vHeadStride,
                rows,
                DecodeScratch(problem, rows, arena),
                false};
  run.initialise();
  run.walkKeys();
  if (!run.allFinite(run.scratch.o)) {  // again, keeping masked values that are not finite out
    run.careful = true;
    run.initialise();
    run.walkKeys();
  }
  run.storePartial();
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
}

}  // namespace
}  // namespace sdpa
