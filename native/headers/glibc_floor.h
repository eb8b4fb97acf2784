// Included before every unit of the addon on Linux. glibc 2.29 to 2.34 gave these functions new versions (moved from
// libpthread and libdl, or rid of an error wrapper), and a build there would ask for them and fail to load on older
// systems. The old versions are still in every glibc and do the same; scripts/check-abi.mjs finds what is missing here.
#pragma once

#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__)
#define SDPA_GLIBC_FLOOR(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
#define SDPA_GLIBC_FLOOR(name) __asm__(".symver " #name "," #name "@GLIBC_2.17");
#else
#define SDPA_GLIBC_FLOOR(name)
#endif

SDPA_GLIBC_FLOOR(exp)
SDPA_GLIBC_FLOOR(log)
SDPA_GLIBC_FLOOR(dladdr)
SDPA_GLIBC_FLOOR(dlopen)
SDPA_GLIBC_FLOOR(pthread_attr_setstacksize)
SDPA_GLIBC_FLOOR(pthread_create)
SDPA_GLIBC_FLOOR(pthread_sigmask)

#undef SDPA_GLIBC_FLOOR

// glibc 2.38 gave strtoll, sscanf and their like new names for reading C23's binary numbers, by a macro of <features.h>.
#undef __GLIBC_USE_C2X_STRTOL
#define __GLIBC_USE_C2X_STRTOL 0
#undef __GLIBC_USE_C23_STRTOL
#define __GLIBC_USE_C23_STRTOL 0

// std::shared_ptr asks here whether its counts need no atomics, by a variable of glibc 2.32. In Node they always do.
#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
constexpr char sdpaIsSingleThreaded = 0;
#define __libc_single_threaded sdpaIsSingleThreaded
#endif
#endif
