// Which kernel tables this machine can run, best first, and which one is in use.
#pragma once

#include "kernel_table.h"

namespace sdpa {

// Names of the ISAs that are compiled in and that this machine has, best first; returns how many.
int availableIsas(const char** out, int max);

// The table of an ISA, or null where it is unknown or the machine lacks it.
const KernelTable* findKernels(const char* isa);

// The table in use: the best one, until selectKernels chose another (tests and NODE_SDPA_ISA do).
const KernelTable& activeKernels();

// False, and nothing changes, where findKernels gives null.
bool selectKernels(const char* isa);

}  // namespace sdpa
