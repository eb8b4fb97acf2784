// Copies of a call's tensors, where the engine cannot keep their memory in place while another thread uses it.
#pragma once

#include <memory>
#include <vector>

#include "binding/arguments.h"

namespace sdpa {

class PrivateMemory {
 public:
  // A copy of the elements of the span that the call uses (at least one), or room for them: what stands for span.data
  // then. Null if memory is out.
  void* copyOf(const Span& span);
  void* roomFor(const Span& span);

  // Writes the rows that `problem` has left in room for `span` to where the typed array is now. Nothing else is
  // touched, and nothing at all where the array no longer is as large as it was.
  static void giveBack(const Problem& problem, const Span& span, const Span& now);
  static void giveBackLse(const Problem& problem, const Span& span, const Span& now);

 private:
  std::vector<std::unique_ptr<char[]>> blocks_;
};

}  // namespace sdpa
