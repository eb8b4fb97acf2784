// Where the keys and values of a sequence lie: together, or in the runs of a cache that shares or recycles its memory.
#pragma once

#include "tile.h"

namespace sdpa {
namespace {

// Keys and values of one head from `key` on: row i lies i row strides after k and v, up to key `end`.
template <class T>
struct KeySpan {
  const T *k, *v;
  int64_t kRowStride, vRowStride;
  int64_t end;
};

// The last run that begins at `key` or before it.
inline const KeyRun& runAt(const Sequence& sequence, int64_t key) {
  int64_t i = 0;
  while (i + 1 < sequence.numRuns && sequence.runs[i + 1].begin <= key) ++i;
  return sequence.runs[i];
}

// Between two runs lie tokens that a window has evicted and that no query sees: the span repeats the row before them.
template <class T>
inline KeySpan<T> gapAfter(const Problem& problem, const Sequence& sequence, int64_t kvHead, const KeyRun& run) {
  const int64_t row = run.end - run.begin - 1;
  const KeyRun* next = &run + 1;
  return {static_cast<const T*>(run.k) + kvHead * run.kHeadStride + row * problem.kRowStride,
          static_cast<const T*>(run.v) + kvHead * run.vHeadStride + row * problem.vRowStride, 0, 0,
          next < sequence.runs + sequence.numRuns ? next->begin : kOpen};
}

// `key` is not before the first run.
template <class T>
inline KeySpan<T> spanAt(const Problem& problem, const Sequence& sequence, int64_t kvHead, int64_t key) {
  if (!sequence.runs) {
    return {static_cast<const T*>(problem.k) + sequence.kOffset + kvHead * problem.kHeadStride + key * problem.kRowStride,
            static_cast<const T*>(problem.v) + sequence.vOffset + kvHead * problem.vHeadStride + key * problem.vRowStride,
            problem.kRowStride, problem.vRowStride, kOpen};
  }
  const KeyRun& run = runAt(sequence, key);
  if (key >= run.end) return gapAfter<T>(problem, sequence, kvHead, run);
  const int64_t row = key - run.begin;
  return {static_cast<const T*>(run.k) + kvHead * run.kHeadStride + row * problem.kRowStride,
          static_cast<const T*>(run.v) + kvHead * run.vHeadStride + row * problem.vRowStride, problem.kRowStride,
          problem.vRowStride, run.end};
}

// fn(span, begin, end) for the spans of keys [begin, end) (relative to origin); each span begins at its `begin`.
template <class T, class Fn>
inline void forEachSpan(const Problem& problem, const Sequence& sequence, int64_t kvHead, int64_t origin, int64_t begin,
                        int64_t end, Fn fn) {
  while (begin < end) {
    const KeySpan<T> span = spanAt<T>(problem, sequence, kvHead, origin + begin);
    const int64_t stop = minimum(end, span.end - origin);
    fn(span, begin, stop);
    begin = stop;
  }
}

}  // namespace
}  // namespace sdpa
