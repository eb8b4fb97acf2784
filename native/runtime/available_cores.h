// How many cores this process may really use.
#pragma once

namespace sdpa {

// The number of logical CPUs in the affinity mask, cut to the CPU quota of the cgroup (v1 or v2; rounded up, since
// a quota of 1.5 CPUs is only reached by two threads). At least 1. Reads files: call once and keep the answer.
int availableCores();

}  // namespace sdpa
