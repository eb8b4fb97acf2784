// Working memory of the thread that asks: kept from call to call, freed when the thread ends.
#pragma once

#include <stddef.h>

namespace sdpa {

// At least `bytes` bytes, 2 MiB aligned (on huge pages where there are many), of unspecified content: what the last
// use left. The next call on the same thread reuses or replaces the memory, so one caller at a time on a thread. Null
// if memory is out.
float* scratch(size_t bytes);

}  // namespace sdpa
