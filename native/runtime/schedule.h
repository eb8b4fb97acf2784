// A problem cut into tasks. Pure: no threads, no memory beyond the plan itself.
#pragma once

#include <vector>

#include "kernel_table.h"

namespace sdpa {

// The chunks of one KV head that are merged when all are done.
struct DecodeHead {
  int64_t firstTask;  // index into Plan::decode
  int64_t numTasks;   // 0 where no row sees a key
  DecodeTask task;    // sequence, kvHead, and the place of the first partial
  int64_t partialFloats;
};

struct Plan {
  std::vector<PrefillTask> prefill;  // most expensive first, so that the last ones to finish are short
  std::vector<DecodeTask> decode;    // `partial` holds an offset until the workspace is allocated; see partialOffset
  std::vector<int64_t> partialOffset;
  std::vector<int64_t> headOfTask;
  std::vector<DecodeHead> heads;
  int64_t partialFloats = 0;   // workspace of all decode tasks
  double microseconds = 0;     // of one thread: an estimate, to judge whether others are worth waking
  size_t scratchBytes = 0;     // of one participant

  void clear();
};

// How problem is executed by `threads` threads with these kernels. The cut never changes a bit of the result: prefill
// rows are independent of one another, decode chunks lie at fixed absolute boundaries.
void makePlan(const KernelTable& kernels, const Problem& problem, int threads, Plan& plan);

}  // namespace sdpa
