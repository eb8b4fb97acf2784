// Preloaded into Node: counts what the addon asks of memory and of threads, and refuses the request that it is told to.
//
//   process.env.SDPA_FAULT = '7 once'    from now on the 7th request is refused; '7 after': and all that follow; '0': none
//   process.env.SDPA_FAULT_SEEN          requests since then
//
// A request is one whose caller lies in node_sdpa.node, or in a C or C++ library that it called. Left out is what libc
// itself cannot survive: the list of destructors of thread_local objects.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

typedef struct {
  uintptr_t begin, end;
} Range;

static Range addon, libc, libstdcxx;
static atomic_long seen, refuse_at;
static atomic_int refuse_after;
static __thread int busy __attribute__((tls_model("initial-exec")));
static int trace;

static void *(*next_new)(size_t), *(*next_new_array)(size_t);
static void *(*next_new_nothrow)(size_t, const void *), *(*next_new_array_nothrow)(size_t, const void *);
static int (*next_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static void *(*next_dlopen)(const char *, int);
static int (*next_setenv)(const char *, const char *, int);
static char *(*next_getenv)(const char *);

static int holds(Range range, const void *address) {
  return range.begin <= (uintptr_t)address && (uintptr_t)address < range.end;
}

typedef struct {
  const char *name;
  Range *range;
} Wanted;

static int note_range(struct dl_phdr_info *info, size_t size, void *wanted) {
  (void)size;
  const Wanted *want = wanted;
  const char *name = strrchr(info->dlpi_name, '/');
  if (!name || strncmp(name + 1, want->name, strlen(want->name)) != 0) return 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
    want->range->begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    want->range->end = want->range->begin + info->dlpi_phdr[i].p_memsz;
  }
  return 1;
}

static void find(const char *name, Range *range) { dl_iterate_phdr(note_range, &(Wanted){name, range}); }

__attribute__((constructor)) static void start(void) {
  busy = 1;
  next_new = dlsym(RTLD_NEXT, "_Znwm");
  next_new_array = dlsym(RTLD_NEXT, "_Znam");
  next_new_nothrow = dlsym(RTLD_NEXT, "_ZnwmRKSt9nothrow_t");
  next_new_array_nothrow = dlsym(RTLD_NEXT, "_ZnamRKSt9nothrow_t");
  next_pthread_create = dlsym(RTLD_NEXT, "pthread_create");
  next_dlopen = dlsym(RTLD_NEXT, "dlopen");
  next_setenv = dlsym(RTLD_NEXT, "setenv");
  next_getenv = dlsym(RTLD_NEXT, "getenv");
  find("libc.so", &libc);
  find("libstdc++.so", &libstdcxx);
  trace = next_getenv("SDPA_FAULT_TRACE") != NULL;
  void *frames[4];
  backtrace(frames, 4);  // loads what it needs
  busy = 0;
}

// Whether the addon asks, itself or by a library that it called.
static int is_addons(void *caller) {
  if (addon.begin == 0 || busy) return 0;
  if (holds(addon, caller)) return 1;
  if (!holds(libc, caller) && !holds(libstdcxx, caller)) return 0;
  busy = 1;
  void *frames[16];
  const int count = backtrace(frames, 16);
  int found = 0, i = 0;
  while (i < count && frames[i] != caller) ++i;
  for (; i < count; ++i) {
    if (holds(libc, frames[i]) || holds(libstdcxx, frames[i])) {
      Dl_info info;
      if (dladdr(frames[i], &info) && info.dli_sname && strstr(info.dli_sname, "cxa_thread_atexit")) break;
      continue;
    }
    found = holds(addon, frames[i]);
    break;
  }
  busy = 0;
  return found;
}

// Whether this request is to be refused.
static int refused(void *caller, const char *what) {
  if (!is_addons(caller)) return 0;
  const long number = atomic_fetch_add(&seen, 1) + 1;
  const long at = atomic_load(&refuse_at);
  const int refuse = at > 0 && (number == at || (number > at && atomic_load(&refuse_after)));
  if (refuse && trace) {
    busy = 1;
    fprintf(stderr, "refused %s, request %ld\n", what, number);
    void *frames[24];
    backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
    busy = 0;
  }
  if (refuse) errno = ENOMEM;
  return refuse;
}

#define REFUSED(what) refused(__builtin_return_address(0), what)

void *malloc(size_t size) { return REFUSED("malloc") ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return REFUSED("calloc") ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return REFUSED("realloc") ? NULL : __libc_realloc(old, size); }
void *aligned_alloc(size_t unit, size_t size) { return REFUSED("aligned_alloc") ? NULL : __libc_memalign(unit, size); }

int posix_memalign(void **out, size_t unit, size_t size) {
  if (REFUSED("posix_memalign")) return ENOMEM;
  *out = __libc_memalign(unit, size);
  return *out ? 0 : ENOMEM;
}

// operator new and new[]: what they throw comes from the library, asked for more than there is.
#define NEW(symbol, next)                                                    \
  void *symbol(size_t size);                                                 \
  void *symbol(size_t size) { return next(REFUSED("new") ? SIZE_MAX / 4 : size); }
NEW(_Znwm, next_new)
NEW(_Znam, next_new_array)

#define NEW_NOTHROW(symbol, next)                     \
  void *symbol(size_t size, const void *tag);         \
  void *symbol(size_t size, const void *tag) { return REFUSED("new (nothrow)") ? NULL : next(size, tag); }
NEW_NOTHROW(_ZnwmRKSt9nothrow_t, next_new_nothrow)
NEW_NOTHROW(_ZnamRKSt9nothrow_t, next_new_array_nothrow)

void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (REFUSED("mmap")) return MAP_FAILED;
  return (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, offset);
}
void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int mprotect(void *address, size_t bytes, int protection) {
  return REFUSED("mprotect") ? -1 : (int)syscall(SYS_mprotect, address, bytes, protection);
}

int madvise(void *address, size_t bytes, int advice) {
  return REFUSED("madvise") ? -1 : (int)syscall(SYS_madvise, address, bytes, advice);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  return REFUSED("pthread_create") ? EAGAIN : next_pthread_create(thread, attributes, body, argument);
}

void *dlopen(const char *file, int mode) {
  void *const handle = next_dlopen(file, mode);
  if (handle && file && strstr(file, "node_sdpa.node")) find("node_sdpa.node", &addon);
  return handle;
}

int setenv(const char *name, const char *value, int overwrite) {
  if (strcmp(name, "SDPA_FAULT") != 0) return next_setenv(name, value, overwrite);
  atomic_store(&refuse_at, 0);
  atomic_store(&seen, 0);
  atomic_store(&refuse_after, strstr(value, "after") != NULL);
  atomic_store(&refuse_at, atol(value));
  return 0;
}

char *getenv(const char *name) {
  if (!next_getenv || strcmp(name, "SDPA_FAULT_SEEN") != 0) return next_getenv ? next_getenv(name) : NULL;
  static char text[24];
  snprintf(text, sizeof text, "%ld", atomic_load(&seen));
  return text;
}
