// The softmax state of a few query rows, a row beside the other: scores[row][key], where online_softmax.h has a row in each
// lane. Few rows leave most lanes empty there.
#pragma once

#include "decode_scores.h"
#include "online_softmax.h"

namespace sdpa {
namespace {

// m [rows, rounded up to the vector width], l [rows][width], one sum in each lane.
struct DecodeState {
  float *m, *l;
  float* rescale;  // exp(m before - m after), as many as m
};

// weights[row][key] = exp(scores[row][key] - m) of `count` keys, zeros behind them up to a whole vector; scores are filled
// likewise with -Infinity. A NaN score is passed over by the maximum and reaches its weight and l.
template <class Products>
inline void softmaxRows(float* scores, int64_t rows, int64_t count, const DecodeState& state,
                        typename Products::Probability* weights) {
  constexpr int64_t W = Vec::kWidth;
  const int64_t end = roundUp(count, W), lanes = roundUp(rows, W);
  float* before = state.rescale;  // until its factor takes its place
  for (int64_t row = 0; row < lanes; ++row) before[row] = state.m[row];
  for (int64_t row = 0; row < rows; ++row) {
    float* place = scores + row * kDecodeBlock;
    for (int64_t key = count; key < end; ++key) place[key] = kNegativeInfinity;
    Vec top = Vec::broadcast(state.m[row]);
    for (int64_t key = 0; key < end; key += W) top = Vec::max(Vec::load(place + key), top);
    state.m[row] = Vec::reduceMax(top);
  }
  for (int64_t lane = 0; lane < lanes; lane += W) {
    exp(Vec::load(before + lane) - finiteMaximum(Vec::load(state.m + lane))).store(state.rescale + lane);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float* place = scores + row * kDecodeBlock;
    const Vec origin = finiteMaximum(Vec::broadcast(state.m[row]));
    Vec sum = Vec::zero();
    for (int64_t key = 0; key < end; key += W) {
      const Vec p = exp(Vec::load(place + key) - origin);
      Products::storeWeights(p, weights + row * kDecodeBlock + key);
      sum = sum + p;
    }
    float* l = state.l + row * W;
    Vec::fma(Vec::load(l), Vec::broadcast(state.rescale[row]), sum).store(l);
  }
}

}  // namespace
}  // namespace sdpa
