#include "scratch.h"

#include <stdint.h>

#include <algorithm>

#include "virtual_memory.h"

namespace sdpa {
namespace {

// Freed at the thread's end by code of this library, which must still be loaded then: glibc and macOS keep a library
// that has such destructors pending, musl never unloads one.
struct Arena {
  AddressRange range;
  size_t bytes = 0;
};
thread_local Arena arena;

}  // namespace

float* scratch(size_t bytes) {
  if (bytes > SIZE_MAX / 4) return nullptr;
  if (bytes > arena.bytes || arena.bytes == 0) {
    // Doubling keeps a slowly growing demand from mapping anew each time.
    const size_t grown = roundUp(std::max({bytes, 2 * arena.bytes, kCommitBytes}), kCommitBytes);
    arena.bytes = 0;
    if (!arena.range.reserve(grown) || !arena.range.commit(0, grown)) {
      arena.range.release();
      return nullptr;
    }
    arena.bytes = grown;
  }
  return reinterpret_cast<float*>(arena.range.data());
}

}  // namespace sdpa
