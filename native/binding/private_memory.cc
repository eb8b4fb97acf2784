#include "binding/private_memory.h"

#include <string.h>

#include <new>

namespace sdpa {
namespace {

struct Rows {
  const char* from;  // element 0, as those of `to`
  char* to;
  int64_t elementBytes, headStride, rowStride, width;

  void copy(int64_t numHeads, int64_t qLen, int64_t offset) const {
    for (int64_t h = 0; h < numHeads; ++h) {
      for (int64_t i = 0; i < qLen; ++i) {
        const int64_t at = (offset + h * headStride + i * rowStride) * elementBytes;
        memcpy(to + at, from + at, static_cast<size_t>(width * elementBytes));
      }
    }
  }
};

bool isStillThere(const Span& span, const Span& now) {
  return now.given && now.length == span.length && now.elementBytes == span.elementBytes;
}

}  // namespace

void* PrivateMemory::roomFor(const Span& span) {
  std::unique_ptr<char[]> block(new (std::nothrow) char[static_cast<size_t>((span.last - span.first + 1) * span.elementBytes)]);
  if (!block) return nullptr;
  blocks_.push_back(std::move(block));
  // Where element 0 would be: an address to count from, not one to use.
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(blocks_.back().get()) -
                                 static_cast<uintptr_t>(span.first * span.elementBytes));
}

void* PrivateMemory::copyOf(const Span& span) {
  void* room = roomFor(span);
  if (!room) return nullptr;
  memcpy(blocks_.back().get(), static_cast<const char*>(span.data) + span.first * span.elementBytes,
         static_cast<size_t>((span.last - span.first + 1) * span.elementBytes));
  return room;
}

void PrivateMemory::giveBack(const Problem& p, const Span& span, const Span& now) {
  if (!isStillThere(span, now)) return;
  const Rows rows{static_cast<const char*>(p.out), static_cast<char*>(now.data), span.elementBytes, p.outHeadStride, p.outRowStride,
                  p.valueDim};
  for (int64_t s = 0; s < p.numSequences; ++s) rows.copy(p.numHeads, p.sequences[s].qLen, p.sequences[s].outOffset);
}

void PrivateMemory::giveBackLse(const Problem& p, const Span& span, const Span& now) {
  if (!isStillThere(span, now)) return;
  const Rows rows{reinterpret_cast<const char*>(p.lse), static_cast<char*>(now.data), span.elementBytes, p.lseHeadStride,
                  p.lseRowStride, 1};
  for (int64_t s = 0; s < p.numSequences; ++s) rows.copy(p.numHeads, p.sequences[s].qLen, p.sequences[s].lseOffset);
}

}  // namespace sdpa
