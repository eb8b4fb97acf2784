// Where the keys and values of a sequence lie: together, or in the runs of a cache that shares or recycles its memory.
#pragma once

#include "tile.h"

namespace sdpa {
namespace {

// Keys and values of one head from `key` on: row i lies i row strides after k and v, up to key `end`.
template <class T>
struct KeySpan {
  const T *k, *v;
  int64_t end;
};

// `key` is one that exists.
template <class T>
inline KeySpan<T> spanAt(const Problem& problem, const Sequence& sequence, int64_t kvHead, int64_t key) {
  if (!sequence.runs) {
    return {static_cast<const T*>(problem.k) + sequence.kOffset + kvHead * problem.kHeadStride + key * problem.kRowStride,
            static_cast<const T*>(problem.v) + sequence.vOffset + kvHead * problem.vHeadStride + key * problem.vRowStride,
            kOpen};
  }
  int64_t i = 0;
  while (i + 1 < sequence.numRuns && sequence.runs[i + 1].begin <= key) ++i;
  const KeyRun& run = sequence.runs[i];
  const int64_t row = key - run.begin;
  return {static_cast<const T*>(run.k) + kvHead * run.kHeadStride + row * problem.kRowStride,
          static_cast<const T*>(run.v) + kvHead * run.vHeadStride + row * problem.vRowStride, run.end};
}

// fn(k, v, begin, end) for the spans of keys [begin, end) (relative to origin); k and v point at `begin`.
template <class T, class Fn>
inline void forEachSpan(const Problem& problem, const Sequence& sequence, int64_t kvHead, int64_t origin, int64_t begin,
                        int64_t end, Fn fn) {
  while (begin < end) {
    const KeySpan<T> span = spanAt<T>(problem, sequence, kvHead, origin + begin);
    const int64_t stop = minimum(end, span.end - origin);
    fn(span.k, span.v, begin, stop);
    begin = stop;
  }
}

}  // namespace
}  // namespace sdpa
