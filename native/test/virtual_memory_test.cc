#include "../runtime/virtual_memory.h"

#include <string.h>

#include <thread>

#include "../runtime/scratch.h"
#include "guard_page.h"
#include "test.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using sdpa::AddressRange;
using sdpa::kCommitBytes;
using sdpa::kHugePageBytes;
using sdpa::test::GuardedBuffer;
using sdpa::test::GuardSide;

// Whether a byte may be touched: the system copies it into a pipe, and refuses instead of faulting.
#if defined(__unix__) || defined(__APPLE__)
bool isReadable(const volatile void* address) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  const bool readable = write(ends[1], const_cast<const void*>(address), 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return readable;
}
#define SDPA_CAN_PROBE 1
#endif

TEST(virtualMemory_reservedIsAlignedAndInaccessible) {
  AddressRange range;
  CHECK(range.data() == nullptr);
  CHECK(range.reserve(5));
  CHECK_EQ(range.reserved(), kHugePageBytes);
  CHECK_EQ(reinterpret_cast<uintptr_t>(range.data()) % kHugePageBytes, 0u);
#if defined(SDPA_CAN_PROBE)
  CHECK(!isReadable(range.data()));
#endif
}

TEST(virtualMemory_commitsWhatItIsToldAndKeepsWhatIsThere) {
  AddressRange range;
  CHECK(range.reserve(size_t{1} << 36));  // far more than the machine has
  CHECK(range.commit(0, kCommitBytes));
  for (size_t i = 0; i < kCommitBytes; i += 512) CHECK_EQ(int{range.data()[i]}, 0);
  memset(range.data(), 7, kCommitBytes);
  CHECK(range.commit(0, 3 * kHugePageBytes));
  CHECK_EQ(int{range.data()[kCommitBytes - 1]}, 7);
  CHECK_EQ(int{range.data()[3 * kHugePageBytes - 1]}, 0);
  range.data()[kHugePageBytes] = 5;
  range.collapse(0, 2 * kHugePageBytes);
  CHECK_EQ(int{range.data()[0]}, 7);
  CHECK_EQ(int{range.data()[kHugePageBytes]}, 5);
#if defined(SDPA_CAN_PROBE)
  CHECK(isReadable(range.data() + 3 * kHugePageBytes - 1));
  CHECK(!isReadable(range.data() + 3 * kHugePageBytes));
#endif
  const size_t last = range.reserved();
  CHECK(range.commit(last - kCommitBytes, last));
  range.data()[last - 1] = 1;
}

TEST(virtualMemory_decommittedIsInaccessibleAndFreshAgain) {
  AddressRange range;
  CHECK(range.reserve(2 * kHugePageBytes));
  CHECK(range.commit(0, 3 * kCommitBytes));
  memset(range.data(), 7, 3 * kCommitBytes);
  range.decommit(kCommitBytes, 2 * kCommitBytes);
  range.decommit(kCommitBytes, kCommitBytes);
#if defined(SDPA_CAN_PROBE)
  CHECK(!isReadable(range.data() + kCommitBytes));
#endif
  CHECK_EQ(int{range.data()[kCommitBytes - 1]}, 7);
  CHECK_EQ(int{range.data()[2 * kCommitBytes]}, 7);
  CHECK(range.commit(kCommitBytes, 2 * kCommitBytes));
  CHECK_EQ(int{range.data()[kCommitBytes]}, 0);
}

TEST(virtualMemory_releaseAndReserveAgain) {
  AddressRange range;
  CHECK(range.reserve(kHugePageBytes));
  CHECK(range.commit(0, kCommitBytes));
  range.data()[0] = 9;
  range.release();
  CHECK(range.data() == nullptr);
  CHECK_EQ(range.reserved(), 0u);
  range.release();
  CHECK(range.reserve(kHugePageBytes));
  CHECK(range.commit(0, kCommitBytes));
  CHECK_EQ(int{range.data()[0]}, 0);
}

TEST(virtualMemory_absurdSizesAreRefused) {
  AddressRange range;
  CHECK(!range.reserve(0));
  CHECK(!range.reserve(~size_t{0}));
  CHECK(!range.reserve(size_t{1} << 62));
  CHECK(range.data() == nullptr);
}

TEST(virtualMemory_physicalMemoryIsKnown) {
  CHECK(sdpa::physicalMemoryBytes() > (uint64_t{1} << 26));
}

TEST(guardPage_bufferTouchesTheGuard) {
  for (size_t count : {size_t{1}, size_t{3}, size_t{1024}, size_t{100000}}) {
    const GuardedBuffer<float> after(count);
    const GuardedBuffer<float> before(count, GuardSide::kBefore);
    for (const auto* buffer : {&after, &before}) {
      for (float& value : *buffer) value = 1.0f;
      CHECK_EQ((*buffer)[count - 1], 1.0f);
    }
#if defined(SDPA_CAN_PROBE)
    CHECK(isReadable(after.end() - 1));
    CHECK(!isReadable(after.end()));
    CHECK(isReadable(before.begin()));
    CHECK(!isReadable(reinterpret_cast<const uint8_t*>(before.begin()) - 1));
#endif
  }
}

TEST(scratch_isKeptGrownAndPrivateToTheThread) {
  float* first = sdpa::scratch(1000);
  CHECK(first != nullptr);
  CHECK_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  first[249] = 3.0f;
  CHECK(sdpa::scratch(0) == first);
  CHECK(sdpa::scratch(1000) == first);
  CHECK_EQ(first[249], 3.0f);
  float* large = sdpa::scratch(size_t{3} << 20);
  CHECK(large != nullptr);
  memset(large, 1, size_t{3} << 20);
  CHECK(sdpa::scratch(16) == large);
  float* other = nullptr;
  std::thread([&] { other = sdpa::scratch(1000); }).join();
  CHECK(other != nullptr);
  CHECK(other != large);
}

TEST(scratch_refusesWhatIsNotThere) {
  CHECK(sdpa::scratch(~size_t{0}) == nullptr);
  CHECK(sdpa::scratch(size_t{1} << 60) == nullptr);
  CHECK(sdpa::scratch(64) != nullptr);
}

}  // namespace
