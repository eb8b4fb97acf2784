// Keeps the memory of typed arrays in place while other threads use it.
#pragma once

#include <napi.h>

#include <memory>

namespace sdpa {

// A share in the memory behind a typed array, or nothing where `value` is none. To hold on to the JavaScript object is
// not enough: a buffer that is transferred leaves its memory to a new owner, which may be collected at any time.
// Nothing too where the engine has no way to share (no V8, or one built with another C++ library, or Windows).
std::shared_ptr<void> pinMemory(Napi::Env env, napi_value value);

}  // namespace sdpa
