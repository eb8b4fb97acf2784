// How many cores this process may really use, and which one it is on.
#pragma once

namespace sdpa {

// The number of logical CPUs in the affinity mask, cut to the CPU quota of the cgroup (v1 or v2; rounded up, since
// a quota of 1.5 CPUs is only reached by two threads). At least 1. Reads files: call once and keep the answer.
int availableCores();

// The affinity mask alone: as many threads run at once while a quota lasts. At least 1.
int affinityCores();

// The core that the calling thread runs on at this moment, or -1 where the system doesn't tell. A few nanoseconds.
int currentCore();

}  // namespace sdpa
