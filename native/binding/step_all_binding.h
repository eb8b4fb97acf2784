// stepAll() of the addon: one step of many caches.
#pragma once

#include <napi.h>

namespace sdpa {

// stepAll(caches: an array of KvCache, tokens: Float64Array, layout, k, v, problem, then the nine operands of attention, k and
// v null) -> status; 2, with nothing appended anywhere, where there is no room. k and v hold an entry for each cache, laid out as
// append's batch entries; cache i takes the first tokens[i] of entry i. Sequence i of the problem attends to cache i.
Napi::Value stepAll(const Napi::CallbackInfo& info);

}  // namespace sdpa
