// The score passes over a transposed tile scores[key][lanes], in the contract's order: (scale is in q) softcap, ALiBi,
// bias, masks. Each is one branch a tile; every feature of a row is a vector of lanes.
#pragma once

#include "../simd/math.h"
#include "pack.h"

namespace sdpa {
namespace {

// The rows of one tile and the keys it looks at. Row rowBegin + lane is query (row / groupSize), head (row % groupSize).
struct ScoreTile {
  const Problem* problem;
  const Sequence* sequence;
  int64_t kvHead, rowBegin;
  int64_t rows, lanes;  // rows <= lanes; lanes is a multiple of the vector width
  int64_t keyOrigin;    // absolute key of scores[0]
  int64_t begin, end;   // keys held, relative to keyOrigin
  float* scores;
};

struct RowIndex {
  int64_t query, head;
};

inline RowIndex rowIndex(const Problem& problem, int64_t kvHead, int64_t row) {
  const int64_t query = row / problem.groupSize;
  return {query, kvHead * problem.groupSize + row - query * problem.groupSize};
}

// fn(first lane of the vector, up to W rows of it) for each vector of the tile; lanes without a row repeat the last row.
template <class Fn>
inline void forEachVector(const ScoreTile& tile, Fn fn) {
  for (int64_t lane = 0; lane < tile.lanes; lane += Vec::kWidth) {
    RowIndex rows[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      rows[i] = rowIndex(*tile.problem, tile.kvHead, tile.rowBegin + minimum(lane + i, tile.rows - 1));
    }
    fn(lane, rows);
  }
}

inline void applySoftcap(const ScoreTile& tile) {
  const Vec cap = Vec::broadcast(tile.problem->softcap);
  for (int64_t i = tile.begin * tile.lanes; i < tile.end * tile.lanes; i += Vec::kWidth) {
    (cap * tanh(Vec::load(tile.scores + i) / cap)).store(tile.scores + i);
  }
}

// Press et al. 2022, in the form -slope * |p - j|.
inline void applyAlibi(const ScoreTile& tile) {
  const Problem& problem = *tile.problem;
  forEachVector(tile, [&](int64_t lane, const RowIndex* rows) {
    float slopes[Vec::kWidth], distances[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      slopes[i] = problem.alibiSlopes[tile.sequence->alibiOffset + rows[i].head * problem.alibiHeadStride];
      distances[i] = static_cast<float>(tile.sequence->queryOffset + rows[i].query - tile.keyOrigin);
    }
    const Vec slope = Vec::load(slopes), position = Vec::load(distances);
    for (int64_t key = tile.begin; key < tile.end; ++key) {
      float* place = tile.scores + key * tile.lanes + lane;
      const Vec distance = Vec::abs(position - Vec::broadcast(static_cast<float>(key)));
      (Vec::load(place) - slope * distance).store(place);
    }
  });
}

inline Vec loadUpTo(const uint8_t* p, int64_t n) {
  float values[Vec::kWidth];
  for (int i = 0; i < Vec::kWidth; ++i) values[i] = i < n ? static_cast<float>(p[i]) : 0.0f;
  return Vec::load(values);
}

// A tensor that broadcasts to the scores, seen from one sequence: element (head, query, key).
template <class T>
struct ScoreOperand {
  const T* data;
  int64_t headStride, rowStride, keyStride;  // keyStride is 0 or 1
  int64_t keyBegin;                          // key of its first column
};

// scores = combine(scores, operand) over the tile; the operand's rows are transposed W x W on the way.
template <class T, class Combine>
inline void combineRows(const ScoreTile& tile, const ScoreOperand<T>& operand, Combine combine) {
  constexpr int W = Vec::kWidth;
  forEachVector(tile, [&](int64_t lane, const RowIndex* rows) {
    const T* operandRows[W];
    for (int i = 0; i < W; ++i) {
      operandRows[i] = operand.data + rows[i].head * operand.headStride + rows[i].query * operand.rowStride +
                       (tile.keyOrigin - operand.keyBegin) * operand.keyStride;
    }
    for (int64_t key = tile.begin; key < tile.end; key += W) {
      const int64_t n = minimum(W, tile.end - key);
      Vec block[W];
      for (int i = 0; i < W; ++i) {
        block[i] = loadUpTo(operandRows[i] + key * operand.keyStride, operand.keyStride ? n : 1);
      }
      Vec::transpose(block);
      for (int64_t j = 0; j < n; ++j) {
        float* place = tile.scores + (key + j) * tile.lanes + lane;
        combine(Vec::load(place), block[operand.keyStride ? j : 0]).store(place);
      }
    }
  });
}

template <class T>
inline void applyBias(const ScoreTile& tile) {
  const Problem& problem = *tile.problem;
  const ScoreOperand<T> bias{static_cast<const T*>(problem.bias) + tile.sequence->biasOffset, problem.biasHeadStride,
                             problem.biasRowStride, problem.biasKeyStride, 0};
  // -Infinity masks, whatever the score: NaN + -Infinity must not stay NaN.
  combineRows(tile, bias, [](Vec score, Vec x) {
    const Vec masked = Vec::broadcast(kNegativeInfinity);
    return Vec::select(x == masked, masked, score + x);
  });
}

inline void applyMask(ScoreTile tile) {
  const Problem& problem = *tile.problem;
  const int64_t keyBegin = tile.sequence->maskBegin;
  tile.begin = maximum(tile.begin, keyBegin - tile.keyOrigin);
  const ScoreOperand<uint8_t> mask{problem.mask + tile.sequence->maskOffset, problem.maskHeadStride,
                                   problem.maskRowStride, problem.maskKeyStride, keyBegin};
  combineRows(tile, mask, [](Vec score, Vec x) {
    return Vec::select(x == Vec::zero(), Vec::broadcast(kNegativeInfinity), score);
  });
}

// Keys outside a row's interval become -Infinity. Called for edge tiles only; the keys between the two edges, which
// every row sees, are not touched.
inline void applyIntervals(const ScoreTile& tile, const KeyHull& hull) {
  // Clamped to the tile, so that the comparisons below are exact in float32.
  const auto local = [&](int64_t key) { return minimum(maximum(key - tile.keyOrigin, tile.begin), tile.end); };
  const Vec masked = Vec::broadcast(kNegativeInfinity);
  forEachVector(tile, [&](int64_t lane, const RowIndex* rows) {
    float begins[Vec::kWidth], ends[Vec::kWidth], sinkEnds[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      const KeyInterval keys = visibleKeys(*tile.problem, *tile.sequence, rows[i].query);
      begins[i] = static_cast<float>(local(keys.begin));
      ends[i] = static_cast<float>(local(keys.end));
      sinkEnds[i] = static_cast<float>(local(keys.sinkEnd));
    }
    const Vec begin = Vec::load(begins), end = Vec::load(ends), sinkEnd = Vec::load(sinkEnds);
    const auto maskKeys = [&](int64_t from, int64_t to) {
      for (int64_t key = from; key < to; ++key) {
        const Vec j = Vec::broadcast(static_cast<float>(key));
        const Mask visible = ((j >= begin) & (j < end)) | (j < sinkEnd);
        float* place = tile.scores + key * tile.lanes + lane;
        Vec::select(visible, Vec::load(place), masked).store(place);
      }
    };
    const int64_t lowEdge = local(hull.maxBegin);
    maskKeys(tile.begin, lowEdge);
    maskKeys(maximum(lowEdge, local(hull.minEnd)), tile.end);
  });
}

// Whether applyScorePasses would change any score of the tile.
inline bool hasScorePasses(const ScoreTile& tile, const KeyHull& hull) {
  const Problem& problem = *tile.problem;
  return problem.softcap != 0.0f || problem.alibiSlopes || problem.bias || problem.mask ||
         !hull.full(tile.keyOrigin + tile.begin, tile.keyOrigin + tile.end);
}

inline void applyScorePasses(const ScoreTile& tile, const KeyHull& hull) {
  const Problem& problem = *tile.problem;
  if (problem.softcap != 0.0f) applySoftcap(tile);
  if (problem.alibiSlopes) applyAlibi(tile);
  if (problem.bias) {
    if (problem.biasDType == kFloat32) applyBias<float>(tile);
    if (problem.biasDType == kFloat16) applyBias<Float16>(tile);
    if (problem.biasDType == kBFloat16) applyBias<BFloat16>(tile);
  }
  if (problem.mask) applyMask(tile);
  if (!hull.full(tile.keyOrigin + tile.begin, tile.keyOrigin + tile.end)) applyIntervals(tile, hull);
}

}  // namespace
}  // namespace sdpa
