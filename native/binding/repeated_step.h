// The step that a cache did last, kept to be done again with other memory. A decode loop does the same step token after
// token; to cross and to check its whole problem each time takes longer than a short cache takes to attend to.
#pragma once

#include "binding/arguments.h"
#include "runtime/kv_cache.h"

namespace sdpa {

// Tokens to append, [batch, numKvHeads, tokens, dim], in a typed array: element index of the first one, and strides.
struct TokenRows {
  int64_t offset, batchStride, headStride, rowStride;

  // False where `span` does not hold them.
  bool find(const Span& span, const KvCacheConfig& config, int64_t tokens, int64_t dim, KvSource* source) const;
};

// What an append is told of its operands.
struct TokenLayout {
  int64_t tokens;
  TokenRows k, v;

  // [tokens, then offset and batch, head, row strides in elements of k, then the same of v]; false where it is malformed.
  bool read(const Span& span);
};

class RepeatedStep {
 public:
  // Keeps a step that has been done, unless it has operands beside q, k, v and out, queries that do not stand at the end
  // of the cache, or nothing to do.
  void keep(DecodedProblem&& decoded, const TokenLayout& layout);

  // Tokens of the kept step; 0 where there is none.
  int64_t tokens() const { return layout_.tokens; }

  // Moves the step to these typed arrays and first elements of q, k, v, out. False where one does not hold its tensor, or
  // where q and out share memory: that is for the validator to judge.
  bool moveTo(const Span (&spans)[4], const int64_t (&offsets)[4], const KvCacheConfig& config);

  const KvSource& k() const { return k_; }
  const KvSource& v() const { return v_; }

  // The problem over a cache of kvLen tokens. Where its keys and values lie is left to the cache.
  DecodedProblem& over(int64_t kvLen);

 private:
  DecodedProblem decoded_;
  TokenLayout layout_{};
  KvSource k_, v_;
  Reach q_, out_;  // from the first element of the tensor
};

}  // namespace sdpa
