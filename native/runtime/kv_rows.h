// The rows of a cache in the order of a file: [batch][numKvHeads][kept tokens][dim], wherever its segments lie.
#pragma once

#include "kv_tokens.h"

namespace sdpa {

// Keys or values of all heads, each of the kept tokens: of the sinks, then from keptBegin on.
int64_t fileRows(const KvTokens& tokens);
int64_t fileRowBytes(const KvTokens& tokens, bool values);

// Copies rows [first, first + count) of that order, keys or values, out of the cache and into it.
void copyRowsOut(const KvTokens& tokens, bool values, int64_t first, int64_t count, uint8_t* rows);
void copyRowsIn(KvTokens& tokens, bool values, int64_t first, int64_t count, const uint8_t* rows);

}  // namespace sdpa
