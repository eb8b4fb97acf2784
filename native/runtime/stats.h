// Statistics of the attention weights: cut the rows into tasks, run them.
#pragma once

#include "runtime/attention.h"

namespace sdpa {

// Writes output and problem.lse with the active kernels, on at most problem.threads threads. The values, and out, are not
// looked at. On kOutOfMemory the results hold unspecified values.
RunStatus runStats(const Problem& problem, const StatsOutput& output);

}  // namespace sdpa
