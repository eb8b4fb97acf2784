// Which keys several sequences share: forks of one cache hold the same memory. Pure.
#pragma once

#include <vector>

#include "problem.h"

namespace sdpa {

// Keys [begin, end) that lie in the same memory for all of `members`, indices of sequences, at least two.
struct SharedKeys {
  int64_t begin, end;
  std::vector<int64_t> members;
};

// The shared keys of these sequences; those of a sequence lie one behind the other from key 0 on.
// limits[i]: keys of sequence i that all of its queries see, whatever option the call has. Every end is a multiple of
// kRunAlign.
std::vector<SharedKeys> findSharedKeys(const std::vector<Sequence>& sequences, const std::vector<int64_t>& limits);

}  // namespace sdpa
