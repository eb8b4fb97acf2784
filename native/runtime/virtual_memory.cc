#include "virtual_memory.h"

#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sdpa {

#if defined(_WIN32)

bool AddressRange::reserve(size_t bytes) {
  release();
  if (bytes == 0 || bytes > SIZE_MAX / 2) return false;
  bytes = roundUp(bytes, kHugePageBytes);
  // Windows can't trim a reservation: take more, see where the aligned part lies, and take that alone. Another
  // thread may be faster; then try again.
  for (int attempt = 0; attempt < 8; ++attempt) {
    void* probe = VirtualAlloc(nullptr, bytes + kHugePageBytes, MEM_RESERVE, PAGE_NOACCESS);
    if (probe == nullptr) return false;
    const size_t aligned = roundUp(reinterpret_cast<size_t>(probe), kHugePageBytes);
    VirtualFree(probe, 0, MEM_RELEASE);
    data_ = static_cast<uint8_t*>(
        VirtualAlloc(reinterpret_cast<void*>(aligned), bytes, MEM_RESERVE, PAGE_NOACCESS));
    if (data_ != nullptr) {
      reserved_ = bytes;
      return true;
    }
  }
  return false;
}

bool AddressRange::commit(size_t begin, size_t end) {
  if (begin >= end) return true;
  return VirtualAlloc(data_ + begin, end - begin, MEM_COMMIT, PAGE_READWRITE) != nullptr;
}

void AddressRange::decommit(size_t begin, size_t end) {
  if (begin < end) VirtualFree(data_ + begin, end - begin, MEM_DECOMMIT);
}

void AddressRange::collapse(size_t, size_t) {}

void AddressRange::release() {
  if (data_ != nullptr) VirtualFree(data_, 0, MEM_RELEASE);
  data_ = nullptr;
  reserved_ = 0;
}

uint64_t physicalMemoryBytes() {
  MEMORYSTATUSEX status;
  status.dwLength = sizeof(status);
  return GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : 0;
}

#else

bool AddressRange::reserve(size_t bytes) {
  release();
  if (bytes == 0 || bytes > SIZE_MAX / 2) return false;
  bytes = roundUp(bytes, kHugePageBytes);
  // PROT_NONE is what makes it free: only writable memory counts against the system's limits. (Not MAP_NORESERVE,
  // which would switch that count off for the committed part too, and turn a refusal into a kill.)
  const size_t taken = bytes + kHugePageBytes;
  void* mapping = mmap(nullptr, taken, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return false;
  uint8_t* start = static_cast<uint8_t*>(mapping);
  const size_t before = roundUp(reinterpret_cast<size_t>(start), kHugePageBytes) - reinterpret_cast<size_t>(start);
  const size_t after = kHugePageBytes - before;
  if (before > 0) munmap(start, before);
  if (after > 0) munmap(start + before + bytes, after);
  data_ = start + before;
  reserved_ = bytes;
#if defined(MADV_HUGEPAGE)
  madvise(data_, reserved_, MADV_HUGEPAGE);
#endif
  return true;
}

bool AddressRange::commit(size_t begin, size_t end) {
  if (begin >= end) return true;
  return mprotect(data_ + begin, end - begin, PROT_READ | PROT_WRITE) == 0;
}

void AddressRange::decommit(size_t begin, size_t end) {
  if (begin >= end) return;
  // A new mapping over the old one: to take the access away alone would leave it counted as this process's memory.
  void* const made = mmap(data_ + begin, end - begin, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#if defined(MADV_HUGEPAGE)
  if (made != MAP_FAILED) madvise(made, end - begin, MADV_HUGEPAGE);
#else
  (void)made;
#endif
}

void AddressRange::collapse(size_t begin, size_t end) {
#if defined(__linux__)
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older kernels answer EINVAL
  if (begin < end) madvise(data_ + begin, end - begin, kCollapse);
#else
  (void)begin;
  (void)end;
#endif
}

void AddressRange::release() {
  if (data_ != nullptr) munmap(data_, reserved_);
  data_ = nullptr;
  reserved_ = 0;
}

uint64_t physicalMemoryBytes() {
#if defined(__APPLE__)
  uint64_t bytes = 0;
  size_t size = sizeof(bytes);
  return sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
#else
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long pageBytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && pageBytes > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(pageBytes) : 0;
#endif
}

#endif

}  // namespace sdpa
