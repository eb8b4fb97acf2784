// Statistics of the attention weights: how the weights of each query row are distributed, without the weights.
//
// A row's weights are p(j) = e^(s(j) - m) / l over the keys it sees, m the largest score and l the sum of the e^(s - m).
// Everything asked for is a sum or a maximum over keys, so one walk over key blocks gathers it, as prefill gathers its
// output (prefill.h: the same tasks, tiles, packed keys and score passes; no values):
//
//   for each key block that some row of the task can see
//     pack K of the block
//     for each query tile that can see the block
//       scores = K qT, through all score passes       // [keys][lanes]; masked keys are -Infinity
//       raiseMaxima                                   // m and its first key; the sums move to the new m
//       addWeights                                    // l, weighted, mass += sums over the block
//   finalize: the sink joins as one more key; entropy, maxWeight, argmax, lse, windowMass
//
// Entropy. -sum p log p = log l - (sum of e^(s - m) (s - m)) / l, where log p = (s - m) - log l. Sums are taken of
// differences to m, never of scores: log l + m - sum p s would cancel as many digits as the scores have. Both terms are
// positive then, the first at most log(keys), and nothing cancels. A move of the origin by step = m before - m after gives
// sum e^(s - m after) (s - m after) = e^step (weighted + step l).
//
// Within a block sums are float32, over chains of at most kPanel keys; from block to block they are double, a few scalar
// operations a row beside the block's 256 exponentials, so that a million keys cost no digits. Bits: as prefill's, a row's
// result depends on its tile and on the absolute block boundaries only, not on how tiles are dealt to tasks.
#pragma once

#include "prefill.h"

namespace sdpa {
namespace {

// A weight below e^kLeastExponent of the largest is 0 in float32, and the sums must not meet 0 * -Infinity.
constexpr float kLeastExponent = -128.0f;

// What is known of a query row after some of its keys.
struct RowStats {
  double l;         // sum of e^(s - m)
  double weighted;  // sum of e^(s - m) (s - m)
  double mass;      // sum of e^(s - m) over the mass window
  int64_t argmax;   // first key with the score m
  float m;          // -Infinity before the first key

  // Moves the sums to a larger origin.
  void raise(float to) {
    const double step = static_cast<double>(m) - static_cast<double>(to);
    m = to;
    if (l == 0.0) return;  // from -Infinity: there is nothing to move
    const double factor = ::exp(step);
    weighted = factor * (weighted + step * l);
    l *= factor;
    mass *= factor;
  }
};

// Which keys of a block count as mass: a row a lane, keys relative to the block's origin, exact in float32.
struct MassWindow {
  Vec begin, end, sinkEnd;

  Mask holds(int64_t key) const {
    const Vec j = Vec::broadcast(static_cast<float>(key));
    return ((j >= begin) & (j < end)) | (j < sinkEnd);
  }
};

struct StatsKernel {
  const Problem& problem;
  const StatsOutput& output;
  const PrefillRows& rows;
  const Float32Prefill& scoring;
  Float32Queries& queries;
  Problem massProblem;  // whose visible keys are the mass window
  RowStats* stats;      // of the rows of the task, tile behind tile

  StatsKernel(const StatsOutput& output_, const PrefillRows& rows_, Float32Queries& queries_, Arena& arena)
      : problem(rows_.problem),
        output(output_),
        rows(rows_),
        scoring(queries_.kernel),
        queries(queries_),
        massProblem(rows_.problem) {
    massProblem.windowLeft = output.massLeft;
    massProblem.windowRight = output.massRight;
    massProblem.sinkTokens = output.massSinkTokens;
    stats = arena.take<RowStats>(roundUp(rows.task.rowEnd - rows.task.rowBegin, rows.tileRows));
  }

  void initialise(const QueryTile& tile) const {
    for (int64_t i = 0; i < tile.lanes; ++i) stats[tile.lane + i] = {0.0, 0.0, 0.0, -1, kNegativeInfinity};
    queries.pack(tile);
  }

  void packBlock(int64_t origin, int64_t begin, int64_t end) const { queries.packBlock(origin, begin, end); }

  void attend(const QueryTile& tile, int64_t origin, int64_t begin, int64_t end) const {
    scoring.computeScores(tile, queries.of(tile), origin, begin, end);
    for (int64_t lane = 0; lane < tile.lanes; lane += Vec::kWidth) {
      raiseMaxima(tile, lane, origin, begin, end);
      if (output.windowMass) {
        addWeights<true>(tile, lane, origin, begin, end);
      } else {
        addWeights<false>(tile, lane, origin, begin, end);
      }
    }
  }

  // m and argmax of one vector of rows. In most blocks no maximum is raised, and nobody looks for its key.
  void raiseMaxima(const QueryTile& tile, int64_t lane, int64_t origin, int64_t begin, int64_t end) const {
    RowStats* row = stats + tile.lane + lane;
    const float* scores = scoring.scores + lane;
    const Vec top = maximumOf(scores, tile.lanes, begin, end, Vec::broadcast(kNegativeInfinity));
    float tops[Vec::kWidth], firstKeys[Vec::kWidth];
    top.store(tops);
    bool raised = false;
    for (int i = 0; i < Vec::kWidth; ++i) raised = raised || tops[i] > row[i].m;
    if (!raised) return;
    Vec first = Vec::zero();
    for (int64_t key = end; key-- > begin;) {
      first = Vec::select(Vec::load(scores + key * tile.lanes) == top, Vec::broadcast(static_cast<float>(key)), first);
    }
    first.store(firstKeys);
    for (int i = 0; i < Vec::kWidth; ++i) {
      if (!(tops[i] > row[i].m)) continue;
      row[i].raise(tops[i]);
      row[i].argmax = origin + static_cast<int64_t>(firstKeys[i]);
    }
  }

  // Adds keys [begin, end) to the sums of one vector of rows. NaN passes through all of them.
  template <bool kWithMass>
  void addWeights(const QueryTile& tile, int64_t lane, int64_t origin, int64_t begin, int64_t end) const {
    RowStats* row = stats + tile.lane + lane;
    const Vec none = Vec::zero();
    const MassWindow window = kWithMass ? massWindow(tile, lane, origin, begin, end) : MassWindow{none, none, none};
    float maxima[Vec::kWidth], sums[3][Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) maxima[i] = row[i].m;
    const Vec m = finiteMaximum(Vec::load(maxima)), least = Vec::broadcast(kLeastExponent);
    Vec l = Vec::zero(), weighted = Vec::zero(), mass = Vec::zero();
    for (int64_t group = begin; group < end; group += kPanel) {
      Vec lPart = Vec::zero(), weightedPart = Vec::zero(), massPart = Vec::zero();
      for (int64_t key = group; key < minimum(group + kPanel, end); ++key) {
        const Vec exponent = Vec::max(least, Vec::load(scoring.scores + key * tile.lanes + lane) - m);
        const Vec p = exp(exponent);
        lPart = lPart + p;
        weightedPart = Vec::fma(p, exponent, weightedPart);
        if (kWithMass) massPart = massPart + Vec::select(window.holds(key), p, Vec::zero());
      }
      l = l + lPart;
      weighted = weighted + weightedPart;
      mass = mass + massPart;
    }
    l.store(sums[0]);
    weighted.store(sums[1]);
    mass.store(sums[2]);
    for (int i = 0; i < Vec::kWidth; ++i) {
      row[i].l += static_cast<double>(sums[0][i]);
      row[i].weighted += static_cast<double>(sums[1][i]);
      row[i].mass += static_cast<double>(sums[2][i]);
    }
  }

  MassWindow massWindow(const QueryTile& tile, int64_t lane, int64_t origin, int64_t begin, int64_t end) const {
    const auto local = [&](int64_t key) { return static_cast<float>(minimum(maximum(key - origin, begin), end)); };
    float begins[Vec::kWidth], ends[Vec::kWidth], sinkEnds[Vec::kWidth];
    for (int i = 0; i < Vec::kWidth; ++i) {
      const int64_t row = tile.rowBegin + minimum(lane + i, tile.rows - 1);
      const KeyInterval keys = visibleKeys(massProblem, rows.sequence, row / problem.groupSize);
      begins[i] = local(keys.begin);
      ends[i] = local(keys.end);
      sinkEnds[i] = local(keys.sinkEnd);
    }
    return {Vec::load(begins), Vec::load(ends), Vec::load(sinkEnds)};
  }

  void finalize() const {
    for (int64_t i = 0; i < rows.task.rowEnd - rows.task.rowBegin; ++i) {
      const RowIndex row = rowIndex(problem, rows.task.kvHead, rows.task.rowBegin + i);
      write(row, problem.sinks ? problem.sinks[row.head] : kNegativeInfinity, stats[i]);
    }
  }

  // A sink joins as one more key, which has no index and no place in the mass.
  void write(const RowIndex& row, float sink, RowStats all) const {
    const double top = static_cast<double>(all.m);
    if (sink != kNegativeInfinity) {
      if (all.m < sink) all.raise(sink);
      const double exponent = static_cast<double>(sink) - static_cast<double>(all.m);
      const double p = ::exp(exponent);
      all.l += p;
      if (p != 0.0) all.weighted += p * exponent;
    }
    const bool isEmpty = all.l == 0.0;
    const double l = isEmpty ? 1.0 : all.l, m = static_cast<double>(all.m);
    const double entropy = log(l) - all.weighted / l;
    const int64_t index = rows.sequence.lseOffset + row.head * problem.lseHeadStride + row.query * problem.lseRowStride;
    output.entropy[index] = static_cast<float>(entropy);
    output.maxWeight[index] = static_cast<float>(isEmpty ? 0.0 : ::exp(top - m) / l);
    output.argmax[index] = entropy == entropy ? static_cast<int32_t>(all.argmax) : -1;
    problem.lse[index] = static_cast<float>(m + log(l));
    if (output.windowMass) output.windowMass[index] = static_cast<float>(all.mass / l);
  }
};

// The scratch of one task, laid out.
struct StatsScratch {
  PrefillScratch prefill;
  StatsKernel kernel;

  StatsScratch(const Problem& problem, const StatsOutput& output, const PrefillTask& task, Arena& arena)
      : prefill(problem, task, arena), kernel(output, prefill.rows, prefill.queries, arena) {}
};

inline size_t statsScratchBytes(const Problem& problem, int64_t rows) {
  Arena arena{nullptr, 0};
  const StatsScratch scratch(problem, {}, {0, 0, 0, rows}, arena);
  (void)scratch;
  return arena.used;
}

inline void stats(const Problem& problem, const StatsOutput& output, const PrefillTask& task, void* scratchMemory) {
  Arena arena{static_cast<char*>(scratchMemory), 0};
  const StatsScratch scratch(problem, output, task, arena);
  scratch.prefill.rows.forEachTile([&](const QueryTile& tile) { scratch.kernel.initialise(tile); });
  scratch.prefill.rows.walkKeys(scratch.kernel, kPanel);
  scratch.kernel.finalize();
}

}  // namespace
}  // namespace sdpa
