// What the addon tells of the machine and lets be set: ISAs, features, threads, and the measured ceilings.
#pragma once

#include <napi.h>

namespace sdpa {

void exportMachine(Napi::Object exports);

}  // namespace sdpa
