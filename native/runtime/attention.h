// Runs a problem: plan, tasks on the pool, merge.
#pragma once

#include "kernel_table.h"

namespace sdpa {

enum class RunStatus { kDone, kCancelled, kOutOfMemory };

// Executes problem with the active kernels on the process's pool, on at most problem.threads threads. On kCancelled and
// kOutOfMemory, out and lse hold unspecified values.
RunStatus runAttention(const Problem& problem);

}  // namespace sdpa
