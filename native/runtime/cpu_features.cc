#include "cpu_features.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "x86_features.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define SDPA_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define SDPA_ARM64 1
#endif

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(SDPA_ARM64)
#include <sys/auxv.h>
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#endif

namespace sdpa {
namespace {

[[maybe_unused]] inline bool bit(uint64_t word, int index) { return (word >> index & 1) != 0; }

#if defined(SDPA_X86)

CpuidResult cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  CpuidResult result;
#if defined(_MSC_VER)
  int registers[4];
  __cpuidex(registers, static_cast<int>(leaf), static_cast<int>(subleaf));
  memcpy(&result, registers, sizeof(result));
#else
  __cpuid_count(leaf, subleaf, result.eax, result.ebx, result.ecx, result.edx);
#endif
  return result;
}

uint64_t xcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low;
  uint32_t high;
  __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // the intrinsic would need -mxsave
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

void detectInstructionSets(CpuFeatures& features) { features = x86Features({cpuid, xcr0}); }

void detectBrand(CpuFeatures& features) {
  if (cpuid(0x80000000).eax < 0x80000004) return;
  char text[49] = "";
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuidResult part = cpuid(0x80000002 + i);
    memcpy(text + 16 * i, &part, 16);
  }
  const char* start = text;
  while (*start == ' ') ++start;  // older processors align the text right
  size_t length = strlen(start);
  while (length > 0 && start[length - 1] == ' ') --length;
  memcpy(features.brand, start, length);
}

// Intel: leaf 4; AMD: leaf 0x8000001D, same format, if it has TOPOEXT.
void detectCaches(CpuFeatures& features) {
  const CpuidResult vendor = cpuid(0);
  const bool amd = vendor.ebx == 0x68747541 || vendor.ebx == 0x6F677948;  // "Auth", "Hygo"
  uint32_t leaf = 4;
  if (amd) {
    if (cpuid(0x80000000).eax < 0x8000001D || !bit(cpuid(0x80000001).ecx, 22)) return;
    leaf = 0x8000001D;
  } else if (vendor.eax < 4) {
    return;
  }
  for (uint32_t index = 0; index < 8; ++index) {
    const CpuidResult cache = cpuid(leaf, index);
    const uint32_t type = cache.eax & 31;  // 0 none, 1 data, 2 instruction, 3 unified
    const uint32_t level = cache.eax >> 5 & 7;
    if (type == 0) break;
    const uint64_t ways = (cache.ebx >> 22) + 1;
    const uint64_t partitions = (cache.ebx >> 12 & 0x3FF) + 1;
    const uint64_t lineBytes = (cache.ebx & 0xFFF) + 1;
    const int bytes = static_cast<int>(ways * partitions * lineBytes * (uint64_t{cache.ecx} + 1));
    if (level == 1 && type != 2) features.l1dBytes = bytes;
    if (level == 2) features.l2Bytes = bytes;
  }
}

#elif defined(SDPA_ARM64)

#if defined(__linux__)

// Bits of AT_HWCAP and AT_HWCAP2 (Documentation/arch/arm64/elf_hwcaps.rst); older headers lack some of the names.
void detectInstructionSets(CpuFeatures& features) {
  const unsigned long capabilities = getauxval(AT_HWCAP);
  const unsigned long capabilities2 = getauxval(AT_HWCAP2);
  features.neon = bit(capabilities, 1);                                    // ASIMD
  features.neonFp16 = bit(capabilities, 10) && bit(capabilities, 9);       // ASIMDHP, FPHP
  features.neonDotProduct = bit(capabilities, 20);                         // ASIMDDP
  features.sve = bit(capabilities, 22);                                    // SVE
  features.neonInt8MatMul = bit(capabilities2, 13);                        // I8MM
  features.neonBf16 = bit(capabilities2, 14);                              // BF16
}

void detectCaches(CpuFeatures& features) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const long l1d = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l1d > 0) features.l1dBytes = static_cast<int>(l1d);
  if (l2 > 0) features.l2Bytes = static_cast<int>(l2);
#endif
}

void detectBrand(CpuFeatures&) {}

#elif defined(__APPLE__)

int64_t systemNumber(const char* name) {
  int64_t value = 0;
  size_t bytes = sizeof(value);
  return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 ? value : 0;
}

void detectInstructionSets(CpuFeatures& features) {
  features.neon = true;
  features.neonFp16 = systemNumber("hw.optional.arm.FEAT_FP16") != 0;
  features.neonDotProduct = systemNumber("hw.optional.arm.FEAT_DotProd") != 0;
  features.neonInt8MatMul = systemNumber("hw.optional.arm.FEAT_I8MM") != 0;
  features.neonBf16 = systemNumber("hw.optional.arm.FEAT_BF16") != 0;
}

void detectCaches(CpuFeatures& features) {
  // perflevel0 is that of the performance cores.
  features.l1dBytes = static_cast<int>(systemNumber("hw.perflevel0.l1dcachesize"));
  features.l2Bytes = static_cast<int>(systemNumber("hw.perflevel0.l2cachesize"));
}

void detectBrand(CpuFeatures& features) {
  size_t bytes = sizeof(features.brand) - 1;
  if (sysctlbyname("machdep.cpu.brand_string", features.brand, &bytes, nullptr, 0) != 0) features.brand[0] = '\0';
}

#else

void detectInstructionSets(CpuFeatures& features) {
  features.neon = true;  // part of every arm64 system
#if defined(_WIN32)
  features.neonDotProduct = IsProcessorFeaturePresent(43) != 0;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
#endif
}

void detectCaches(CpuFeatures&) {}
void detectBrand(CpuFeatures&) {}

#endif

#else  // other architectures run the portable kernels

void detectInstructionSets(CpuFeatures&) {}
void detectCaches(CpuFeatures&) {}
void detectBrand(CpuFeatures&) {}

#endif

CpuFeatures detect() {
  CpuFeatures features;
  detectInstructionSets(features);
  detectBrand(features);
  detectCaches(features);
  return features;
}

bool askSystemForAmx() {
  if (!cpuFeatures().amxTile) return false;
#if defined(__linux__) && defined(__x86_64__)
  constexpr int kGetPermitted = 0x1022;       // ARCH_GET_XCOMP_PERM, Linux 5.16
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // the state component's number
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  uint64_t permitted = 0;
  return syscall(SYS_arch_prctl, kGetPermitted, &permitted) == 0 && bit(permitted, kTileData);
#elif defined(_WIN32)
  // Windows 11 and Server 2022; those before know no tiles.
  using Enable = BOOL(WINAPI*)(DWORD64 features);
  const HMODULE kernel = GetModuleHandleW(L"kernel32.dll");
  const FARPROC found = kernel ? GetProcAddress(kernel, "EnableProcessOptionalXStateFeatures") : nullptr;
  return found && reinterpret_cast<Enable>(reinterpret_cast<void*>(found))(kAmxState) != 0;
#else
  return false;
#endif
}

}  // namespace

const CpuFeatures& cpuFeatures() {
  static const CpuFeatures features = detect();
  return features;
}

int featureNames(const char** out, int max) {
  const CpuFeatures& features = cpuFeatures();
  int count = 0;
#define SDPA_NAME(field, name) \
  if (features.field && count < max) out[count++] = name;
  SDPA_CPU_FEATURES(SDPA_NAME)
#undef SDPA_NAME
  return count;
}

bool requestAmx() {
  static const bool allowed = askSystemForAmx();
  return allowed;
}

}  // namespace sdpa
