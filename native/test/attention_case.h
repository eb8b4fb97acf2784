// A small attention problem in guarded memory: what kernels, schedule and runAttention are tested with.
#pragma once

#include <math.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "../int8_row.h"
#include "../problem.h"
#include "guard_page.h"

namespace sdpa {
namespace test {

// How a mask or a bias broadcasts to [B, Hq, Lq, Lk].
enum class Operand { kNone, kFull, kOneKey /* [.., .., Lq, 1] */, kOneRow /* [1, 1, 1, Lk] */ };

struct Lengths {
  int64_t qLen, kvLen;
};

struct AttentionCase {
  std::vector<Lengths> sequences = {{7, 33}};
  int64_t numKvHeads = 2, groupSize = 2, headDim = 16, valueDim = 16;
  int64_t offsetShift = 0;  // queryOffset = kvLen - qLen + offsetShift
  int64_t windowLeft = kOpen, windowRight = kOpen, sinkTokens = 0;
  float softcap = 0.0f, scoreScale = 1.0f;  // scale = scoreScale / sqrt(headDim)
  bool alibi = false, sinks = false, lse = true;
  Operand bias = Operand::kNone, mask = Operand::kNone;
  DType qDType = kFloat32, kvDType = kFloat32, biasDType = kFloat32;
  int64_t padding = 0;  // elements that belong to nobody, behind each row and (as rows) behind each head
  uint64_t seed = 1;
};

inline std::string describe(const AttentionCase& c) {
  std::ostringstream text;
  text << "qLen x kvLen";
  for (const Lengths& s : c.sequences) text << " " << s.qLen << "x" << s.kvLen;
  text << ", heads " << c.numKvHeads << "x" << c.groupSize << ", D " << c.headDim << ", Dv " << c.valueDim << ", offset "
       << c.offsetShift << ", window " << (c.windowLeft < kOpen ? c.windowLeft : -1) << " "
       << (c.windowRight < kOpen ? std::to_string(c.windowRight) : "open") << " sinkTokens " << c.sinkTokens
       << ", softcap " << c.softcap << ", alibi " << c.alibi << ", sinks " << c.sinks << ", lse " << c.lse << ", bias "
       << static_cast<int>(c.bias) << ", mask " << static_cast<int>(c.mask) << ", dtypes " << c.qDType << c.kvDType
       << c.biasDType << ", padding " << c.padding << ", seed " << c.seed;
  return text.str();
}

// Reproducible and cheap, for emulators too.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  float uniform() { return static_cast<float>(bits() >> 7) * 0x1p-24f; }
  // About normal: variance 1, within +-3.5.
  float normal() { return (uniform() + uniform() + uniform() + uniform() - 2.0f) * 1.7320508f; }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits()) % n; }

 private:
  uint64_t state_;
};

inline int64_t elementBytes(DType dtype) { return dtype == kFloat32 ? 4 : dtype == kInt8 ? 1 : 2; }

// Values of one dtype that touch a guard page, and the same values as float32.
struct Values {
  DType dtype;
  GuardedBuffer<uint8_t> bytes;
  std::vector<float> floats;  // NaN where nothing was set

  Values(DType type, int64_t count, GuardSide side)
      : dtype(type),
        bytes(static_cast<size_t>(count * elementBytes(type)), side),
        floats(static_cast<size_t>(count), NAN) {}

  void set(int64_t index, float value);  // rounds to the dtype
  void setRow(int64_t first, const std::vector<float>& numbers);  // of int8
  float get(int64_t index) const;
  void poison() { memset(bytes.data(), 0xFF, bytes.size()); }  // NaN in every dtype
  bool isPoison(int64_t index) const {
    const size_t size = static_cast<size_t>(elementBytes(dtype));
    for (size_t i = 0; i < size; ++i) {
      if (bytes[static_cast<size_t>(index) * size + i] != 0xFF) return false;
    }
    return true;
  }
};

// [head][token][channel] of all sequences, packed one behind the other; the last value ends the buffer.
struct TokenTensor {
  int64_t rowStride, headStride;
  Values values;

  TokenTensor(DType dtype, int64_t heads, int64_t tokens, int64_t dim, int64_t padding, GuardSide side)
      : rowStride(rowElements(dtype, dim) + (dtype == kInt8 ? 4 * padding : padding)),
        headStride((tokens + padding) * rowStride),
        values(dtype, tokens ? (heads - 1) * headStride + (tokens - 1) * rowStride + rowElements(dtype, dim) : 0, side) {}

  // Rows of int8 end with their scale.
  static int64_t rowElements(DType dtype, int64_t dim) { return dtype == kInt8 ? int8RowBytes(dim) : dim; }

  void fill(int64_t heads, int64_t tokens, int64_t dim, Random& random) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t row = h * headStride + t * rowStride;
        std::vector<float> numbers(static_cast<size_t>(dim));
        for (float& x : numbers) x = random.normal();
        if (values.dtype == kInt8) {
          values.setRow(row, numbers);
        } else {
          for (int64_t d = 0; d < dim; ++d) values.set(row + d, numbers[static_cast<size_t>(d)]);
        }
      }
    }
  }
};

// [sequence][head][row][key] with broadcast axes of stride 0. A mask is float32 zeros and ones until it is copied.
struct ScoreTensor {
  int64_t sequenceStride = 0, headStride = 0, rowStride = 0, keyStride = 0;
  std::unique_ptr<Values> values;

  ScoreTensor(const AttentionCase& c, Operand shape, DType dtype, GuardSide side) {
    if (shape == Operand::kNone) return;
    int64_t maxQ = 1, maxK = 1;
    for (const Lengths& s : c.sequences) {
      maxQ = s.qLen > maxQ ? s.qLen : maxQ;
      maxK = s.kvLen > maxK ? s.kvLen : maxK;
    }
    const int64_t keys = shape == Operand::kOneKey ? 1 : maxK, heads = c.numKvHeads * c.groupSize;
    keyStride = shape == Operand::kOneKey ? 0 : 1;
    if (shape != Operand::kOneRow) {
      rowStride = keys + c.padding;
      headStride = maxQ * rowStride;
      sequenceStride = heads * headStride;
    }
    const int64_t sequences = static_cast<int64_t>(c.sequences.size());
    const int64_t rows = shape == Operand::kOneRow ? 1 : sequences * heads * maxQ;
    values = std::make_unique<Values>(dtype, (rows - 1) * rowStride + keys, side);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < keys; ++j) values->set(r * rowStride + j, 0.0f);
    }
  }
};

struct AttentionInstance {
  AttentionCase spec;
  int64_t totalQ = 0, totalK = 0;
  std::vector<Sequence> sequences;
  std::unique_ptr<TokenTensor> q, k, v, out;
  std::unique_ptr<Values> lse, alibi, sinks;
  ScoreTensor bias, mask;
  std::unique_ptr<GuardedBuffer<uint8_t>> maskBytes;
  Problem problem{};

  explicit AttentionInstance(const AttentionCase& c, GuardSide side = GuardSide::kAfter);

  int64_t numHeads() const { return spec.numKvHeads * spec.groupSize; }
  int64_t qRow(int64_t s, int64_t head, int64_t i) const {
    return sequences[static_cast<size_t>(s)].qOffset + head * q->headStride + i * q->rowStride;
  }
  int64_t kRow(int64_t s, int64_t kvHead, int64_t j) const {
    return sequences[static_cast<size_t>(s)].kOffset + kvHead * k->headStride + j * k->rowStride;
  }
  int64_t vRow(int64_t s, int64_t kvHead, int64_t j) const {
    return sequences[static_cast<size_t>(s)].vOffset + kvHead * v->headStride + j * v->rowStride;
  }
  int64_t outRow(int64_t s, int64_t head, int64_t i) const {
    return sequences[static_cast<size_t>(s)].outOffset + head * out->headStride + i * out->rowStride;
  }
  int64_t lseAt(int64_t s, int64_t head, int64_t i) const {
    return sequences[static_cast<size_t>(s)].lseOffset + head * problem.lseHeadStride + i;
  }
  void clearOutputs() {
    out->values.poison();
    if (lse) lse->poison();
  }
};

}  // namespace test
}  // namespace sdpa
