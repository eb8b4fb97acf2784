// attentionStats() of the addon.
#pragma once

#include <napi.h>

namespace sdpa {

// attentionStats(problem, q, k, v, out, lse, mask, bias, alibiSlopes, sinks, entropy, maxWeight, argmax, windowMass,
// massWindow) -> status. The statistics are laid out as lse; v and out are not used.
Napi::Value attentionStats(const Napi::CallbackInfo& info);

}  // namespace sdpa
