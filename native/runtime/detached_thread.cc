#include "detached_thread.h"

#include <stddef.h>

#include <initializer_list>
#include <memory>
#include <new>

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <process.h>
#include <windows.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#endif

namespace sdpa {
namespace {

constexpr size_t kStackBytes = size_t{1} << 20;  // musl's default of 128 KiB is little for kernels

struct Start {
  void (*body)(void*);
  void* argument;
};

void runAndForget(void* start) {
  const Start copy = *static_cast<Start*>(start);
  delete static_cast<Start*>(start);
  copy.body(copy.argument);
}

}  // namespace

// Threads of the platform, not std::thread, whose constructor throws where the system refuses one.
#if defined(_WIN32)

namespace {
unsigned __stdcall entry(void* start) {
  runAndForget(start);
  return 0;
}
}  // namespace

bool startDetachedThread(void (*body)(void*), void* argument) {
  std::unique_ptr<Start> start(new (std::nothrow) Start{body, argument});
  if (start == nullptr) return false;
  const uintptr_t handle = _beginthreadex(nullptr, static_cast<unsigned>(kStackBytes), entry, start.get(),
                                          STACK_SIZE_PARAM_IS_A_RESERVATION, nullptr);
  if (handle == 0) return false;
  start.release();
  CloseHandle(reinterpret_cast<HANDLE>(handle));
  return true;
}

void pinLibrary() {
  HMODULE module;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<LPCWSTR>(&pinLibrary), &module);
}

#else

namespace {
void* entry(void* start) {
  runAndForget(start);
  return nullptr;
}
}  // namespace

bool startDetachedThread(void (*body)(void*), void* argument) {
  std::unique_ptr<Start> start(new (std::nothrow) Start{body, argument});
  if (start == nullptr) return false;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);

  // A thread inherits the mask of its creator. Faults stay unblocked, so that they are reported where they happen,
  // and so does the profiler's signal.
  sigset_t blocked;
  sigset_t previous;
  sigfillset(&blocked);
  for (int kept : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGPROF}) sigdelset(&blocked, kept);
  pthread_sigmask(SIG_SETMASK, &blocked, &previous);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, entry, start.get()) == 0;
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  pthread_attr_destroy(&attributes);
  if (!started) return false;
  start.release();
  return true;
}

void pinLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&pinLibrary), &info) == 0 || info.dli_fname == nullptr) return;
  // Loaded already, so this only adds a flag; the handle is kept on purpose.
  dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

#endif

}  // namespace sdpa
