// Keeps the memory of typed arrays in place while other threads use it.
#pragma once

#include <napi.h>

#include <memory>

namespace sdpa {

enum class Hold {
  kStays,   // whoever keeps the JavaScript object keeps the memory: shared memory, or no typed array at all
  kPinned,  // this share of the memory keeps it
  kMayGo,   // the engine has no way to share (no V8, or one built with another C++ library, or Windows)
};

// How the memory behind a typed array stays. To hold on to the JavaScript object is not enough: a buffer that is
// transferred leaves its memory to a new owner, which may be collected at any time.
Hold holdMemory(Napi::Env env, napi_value value, std::shared_ptr<void>& pin);

// pinsMemory(enabled?) -> whether this engine can; false makes this process do without, for tests
Napi::Value pinsMemory(const Napi::CallbackInfo& info);

}  // namespace sdpa
