#include "naive_attention.h"

#include <float.h>

#include <sstream>

#include "../simd/half.h"

namespace sdpa {
namespace test {
namespace {

// fn(sequence, head, row, index of the row) for each query row.
template <class Fn>
void forEachRow(const AttentionInstance& a, Fn fn) {
  int64_t index = 0;
  for (int64_t s = 0; s < a.problem.numSequences; ++s) {
    for (int64_t h = 0; h < a.numHeads(); ++h) {
      for (int64_t i = 0; i < a.sequences[static_cast<size_t>(s)].qLen; ++i) fn(s, h, i, index++);
    }
  }
}

float roundTo(DType dtype, float x) {
  if (dtype == kFloat16) {
    Float16 half;
    fromFloat(x, &half);
    return toFloat(half);
  }
  if (dtype == kBFloat16) {
    BFloat16 half;
    fromFloat(x, &half);
    return toFloat(half);
  }
  return x;
}

// The largest difference and the relative Frobenius norm over values where both are finite.
struct Distance {
  double largest = 0, squares = 0, norm = 0;
  void add(double actual, double expected) {
    if (!std::isfinite(actual) || !std::isfinite(expected)) return;
    const double difference = actual - expected;
    largest = std::max(largest, std::fabs(difference));
    squares += difference * difference;
    norm += expected * expected;
  }
  double relative() const { return norm == 0 ? 0 : std::sqrt(squares / norm); }
};

bool sameKind(double actual, double expected) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  return std::isfinite(actual);
}

}  // namespace

Expected expectedOf(const AttentionInstance& a) {
  const size_t dim = static_cast<size_t>(a.spec.valueDim);
  Expected e;
  Distance outError, lseError;
  double largestScore = 0, largestValue = 0;
  std::vector<float> narrow(dim);
  const bool areRounded = a.spec.kvDType == a.spec.qDType || a.spec.kvDType == kInt8;
  const DType weightType = areRounded ? a.spec.qDType : kFloat32;
  forEachRow(a, [&](int64_t s, int64_t h, int64_t i, int64_t) {
    e.out.resize(e.out.size() + dim);
    double lse;
    double* row = e.out.data() + e.out.size() - dim;
    largestScore = std::max(largestScore, naiveRow(a, s, h, i, row, &lse, [](double weight) { return weight; }));
    e.lse.push_back(lse);
    float narrowLse;
    naiveRow(a, s, h, i, narrow.data(), &narrowLse, [&](float weight) { return roundTo(weightType, weight); });
    lseError.add(static_cast<double>(narrowLse), lse);
    for (size_t d = 0; d < dim; ++d) outError.add(static_cast<double>(roundTo(a.spec.qDType, narrow[d])), row[d]);
  });
  for (float x : a.v->values.floats) {
    if (std::isfinite(x)) largestValue = std::max(largestValue, std::fabs(static_cast<double>(x)));
  }
  const double floor = 2 * FLT_EPSILON * (2 + largestScore);
  double largestOut = 0;
  for (double x : e.out) {
    if (std::isfinite(x)) largestOut = std::max(largestOut, std::fabs(x));
  }
  // The last rounding, of a number between two, may go either way.
  const double halfUlp = a.spec.qDType == kBFloat16 ? 0x1p-8 : a.spec.qDType == kFloat16 ? 0x1p-11 : 0.0;
  e.outTolerance = 2 * outError.largest + floor * largestValue + halfUlp * largestOut;
  e.lseTolerance = 2 * lseError.largest + floor;
  e.relativeTolerance = 2 * outError.relative() + floor;
  return e;
}

std::string faultOf(const AttentionInstance& a, const Expected& expected) {
  const int64_t dim = a.spec.valueDim;
  std::ostringstream fault;
  std::vector<bool> written(a.out->values.floats.size());
  Distance error;
  forEachRow(a, [&](int64_t s, int64_t h, int64_t i, int64_t index) {
    for (int64_t d = 0; d < dim; ++d) {
      const int64_t place = a.outRow(s, h, i) + d;
      const double actual = static_cast<double>(a.out->values.get(place));
      const double wanted = expected.out[static_cast<size_t>(index * dim + d)];
      written[static_cast<size_t>(place)] = true;
      error.add(actual, wanted);
      if (sameKind(actual, wanted) && !(std::fabs(actual - wanted) > expected.outTolerance)) continue;
      if (fault.tellp() > 0) continue;
      fault << "out[sequence " << s << "][head " << h << "][row " << i << "][" << d << "] is " << actual
            << ", expected " << wanted << " within " << expected.outTolerance;
    }
    if (!a.lse) return;
    const double actual = static_cast<double>(a.lse->get(a.lseAt(s, h, i))), wanted = expected.lse[static_cast<size_t>(index)];
    if (sameKind(actual, wanted) && !(std::fabs(actual - wanted) > expected.lseTolerance)) return;
    if (fault.tellp() > 0) return;
    fault << "lse[sequence " << s << "][head " << h << "][row " << i << "] is " << actual << ", expected " << wanted
          << " within " << expected.lseTolerance;
  });
  if (fault.tellp() == 0 && error.relative() > expected.relativeTolerance) {
    fault << "relative error " << error.relative() << ", allowed " << expected.relativeTolerance;
  }
  for (size_t i = 0; i < written.size() && fault.tellp() == 0; ++i) {
    if (!written[i] && !a.out->values.isPoison(static_cast<int64_t>(i))) fault << "out was written between rows, at " << i;
  }
  return fault.str();
}

}  // namespace test
}  // namespace sdpa
