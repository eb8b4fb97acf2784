#include "available_cores.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <limits>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <unistd.h>
#endif

namespace sdpa {
namespace {

constexpr int kNoLimit = std::numeric_limits<int>::max();

#if defined(__linux__)

// The mask is asked for with room for ever more CPUs: the kernel answers EINVAL while it doesn't fit.
int coresOfAffinityMask() {
  for (int maxCores = 1024; maxCores <= 1 << 16; maxCores *= 2) {
    cpu_set_t* mask = CPU_ALLOC(maxCores);
    if (mask == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(maxCores);
    const int count = sched_getaffinity(0, bytes, mask) == 0 ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (count > 0) return count;
  }
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

int coresOfQuota(long long quotaMicroseconds, long long periodMicroseconds) {
  if (quotaMicroseconds <= 0 || periodMicroseconds <= 0) return kNoLimit;
  const long long cores = (quotaMicroseconds + periodMicroseconds - 1) / periodMicroseconds;
  return static_cast<int>(std::min<long long>(cores, kNoLimit));
}

bool readLine(const char* directory, const char* file, char* line, int lineBytes) {
  char path[1024];
  const int length = snprintf(path, sizeof(path), "%s/%s", directory, file);
  if (length < 0 || length >= static_cast<int>(sizeof(path))) return false;
  FILE* stream = fopen(path, "re");
  if (stream == nullptr) return false;
  const bool read = fgets(line, lineBytes, stream) != nullptr;
  fclose(stream);
  return read;
}

// The quota set on one cgroup directory: cpu.max of v2 ("max 100000" or "150000 100000"), or v1's pair of files.
int quotaOfDirectory(const char* directory) {
  char line[128];
  long long quota = 0;
  long long period = 0;
  if (readLine(directory, "cpu.max", line, sizeof(line))) {
    return sscanf(line, "%lld %lld", &quota, &period) == 2 ? coresOfQuota(quota, period) : kNoLimit;
  }
  if (!readLine(directory, "cpu.cfs_quota_us", line, sizeof(line))) return kNoLimit;
  quota = atoll(line);
  if (!readLine(directory, "cpu.cfs_period_us", line, sizeof(line))) return kNoLimit;
  return coresOfQuota(quota, atoll(line));
}

// The tightest quota from `mount`/`group` up to `mount`: a parent's limit binds its children. In a container
// the group's path may name directories of the host, which don't exist here; its own root is then the mount.
int quotaOfGroup(const char* mount, const char* group) {
  char directory[1024];
  const int length = snprintf(directory, sizeof(directory), "%s%s", mount, group);
  if (length < 0 || length >= static_cast<int>(sizeof(directory))) return quotaOfDirectory(mount);
  int cores = kNoLimit;
  while (strlen(directory) >= strlen(mount)) {
    cores = std::min(cores, quotaOfDirectory(directory));
    char* lastSlash = strrchr(directory, '/');
    if (lastSlash == nullptr) break;
    *lastSlash = '\0';
  }
  return cores;
}

bool namesCpuController(char* controllers) {
  char* rest = nullptr;
  for (char* name = strtok_r(controllers, ",", &rest); name != nullptr; name = strtok_r(nullptr, ",", &rest)) {
    if (strcmp(name, "cpu") == 0) return true;
  }
  return false;
}

// /proc/self/cgroup has a line "id:controllers:path" for each hierarchy; v2's has no controllers.
int coresOfCgroups() {
  FILE* stream = fopen("/proc/self/cgroup", "re");
  if (stream == nullptr) return kNoLimit;
  int cores = kNoLimit;
  char line[1024];
  while (fgets(line, sizeof(line), stream) != nullptr) {
    line[strcspn(line, "\n")] = '\0';
    char* controllers = strchr(line, ':');
    if (controllers == nullptr) continue;
    char* group = strchr(++controllers, ':');
    if (group == nullptr) continue;
    *group++ = '\0';
    if (strcmp(group, "/") == 0) group[0] = '\0';
    if (controllers[0] == '\0') {
      cores = std::min(cores, quotaOfGroup("/sys/fs/cgroup", group));
    } else if (namesCpuController(controllers)) {
      cores = std::min(cores, quotaOfGroup("/sys/fs/cgroup/cpu", group));
    }
  }
  fclose(stream);
  return cores;
}

#elif defined(_WIN32)

int coresOfAffinityMask() {
  DWORD_PTR processMask = 0;
  DWORD_PTR systemMask = 0;
  int count = 0;
  // 0 for a process that spans several processor groups: then all of them count.
  if (GetProcessAffinityMask(GetCurrentProcess(), &processMask, &systemMask)) {
    for (; processMask != 0; processMask &= processMask - 1) ++count;
  }
  return count > 0 ? count : static_cast<int>(GetActiveProcessorCount(ALL_PROCESSOR_GROUPS));
}

int coresOfCgroups() { return kNoLimit; }

#else

int coresOfAffinityMask() { return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)); }

int coresOfCgroups() { return kNoLimit; }

#endif

}  // namespace

int currentCore() {
#if defined(__linux__)
  return sched_getcpu();
#elif defined(_WIN32)
  return static_cast<int>(GetCurrentProcessorNumber());
#else
  return -1;
#endif
}

int availableCores() { return std::max(1, std::min(coresOfAffinityMask(), coresOfCgroups())); }

int affinityCores() { return std::max(1, coresOfAffinityMask()); }

}  // namespace sdpa
