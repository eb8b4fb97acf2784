// Attention over many independent caches at once; keys that they share are read once for all of them.
#pragma once

#include <vector>

#include "attention.h"
#include "kv_tokens.h"

namespace sdpa {

// Executes `problem`, whose sequence i attends to the tokens of caches[i], batch entry 0. The caches are of one layout, and
// sequences[i].kvLen is at most caches[i]->length(). Where keys and values lie is filled in, here and in `sequences`, which
// problem.sequences points at.
RunStatus attendAll(const Problem& problem, std::vector<Sequence>& sequences, const std::vector<const KvTokens*>& caches);

}  // namespace sdpa
