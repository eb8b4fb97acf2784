// Threads that nobody joins, and the library code that they need.
#pragma once

namespace sdpa {

// Runs body(argument) on a new thread that lives as long as the process or until body returns. False if the system
// refuses one. Signals of the host program are not delivered to it.
bool startDetachedThread(void (*body)(void*), void* argument);

// Keeps this library loaded until the process ends. Node unloads an addon with the last worker_thread that has loaded
// it, which would take the code away under our threads and under the destructors of thread_local memory.
void pinLibrary();

}  // namespace sdpa
