// What the compilers spell differently. Includes nothing of ours.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#define SDPA_ALWAYS_INLINE __forceinline
#define SDPA_NO_INLINE __declspec(noinline)  // where a copy for each caller costs bytes and saves no time
#define SDPA_HIDDEN
#define SDPA_UNROLL
#define SDPA_READ_FLAG(p) (*(p))  // a volatile int that another thread writes
#define SDPA_WRITE_FLAG(p, value) (*(p) = (value))
#if defined(_M_X64)
#include <immintrin.h>
#define SDPA_PREFETCH_READ(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1)
#define SDPA_PREFETCH_NEAR(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)
#define SDPA_PREFETCH_WRITE(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)
#else
#include <intrin.h>  // where __prefetch is
#define SDPA_PREFETCH_READ(p) __prefetch(p)
#define SDPA_PREFETCH_NEAR(p) __prefetch(p)
#define SDPA_PREFETCH_WRITE(p) __prefetch(p)
#endif
#else
#define SDPA_ALWAYS_INLINE inline __attribute__((always_inline))
#define SDPA_NO_INLINE __attribute__((noinline))
#if defined(_WIN32)  // where nothing is exported that does not ask for it
#define SDPA_HIDDEN
#else
#define SDPA_HIDDEN __attribute__((visibility("hidden")))
#endif
#define SDPA_READ_FLAG(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define SDPA_WRITE_FLAG(p, value) __atomic_store_n((p), (value), __ATOMIC_RELAXED)
#define SDPA_PREFETCH_READ(p) __builtin_prefetch((p), 0, 2)   // into L2
#define SDPA_PREFETCH_NEAR(p) __builtin_prefetch((p), 0, 3)   // into L1
#define SDPA_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)  // into L1
#if defined(__clang__)
#define SDPA_UNROLL _Pragma("unroll")
#else
#define SDPA_UNROLL _Pragma("GCC unroll 32")
#endif
#endif
