// In place of Node-API: as much of it as native/binding/arguments.cc and repeated_step.cc name, so that what the addon does with
// numbers and memory from JavaScript is fuzzed as it is, without Node.
#pragma once

#include <stddef.h>

using napi_value = void*;
using napi_env = void*;
enum napi_status { napi_ok, napi_invalid_arg };
enum napi_typedarray_type {
  napi_float64_array,
  napi_bigint64_array,
  napi_biguint64_array,
  napi_float32_array,
  napi_int32_array,
  napi_uint32_array,
  napi_int16_array,
  napi_uint16_array,
  napi_uint8_array
};

inline napi_status napi_get_typedarray_info(napi_env, napi_value, napi_typedarray_type*, size_t*, void**, napi_value*, size_t*) {
  return napi_invalid_arg;
}

namespace Napi {

struct Env {
  operator napi_env() const { return nullptr; }
};

struct Error {
  void ThrowAsJavaScriptException() const {}
};

struct RangeError {
  static Error New(Env, const char*) { return {}; }
};

struct TypeError {
  static Error New(Env, const char*) { return {}; }
};

struct CallbackInfo {
  Napi::Env Env() const { return {}; }
  napi_value operator[](size_t) const { return nullptr; }
};

}  // namespace Napi
