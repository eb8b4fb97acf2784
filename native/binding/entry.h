// How JavaScript enters the addon: functions of Node-API that let no C++ exception out. Node's own code could not be
// unwound, and the process would end. The one exception that there is, std::bad_alloc, becomes one of JavaScript.
#pragma once

#include <napi.h>

#include <exception>
#include <new>

namespace sdpa {

// `code` of the RangeError that says so; lib/native/call.ts knows it.
constexpr char kOutOfMemoryCode[] = "SDPA_OUT_OF_MEMORY";

// A number that lib/ passes. Not Napi's ToNumber: that converts, which an environment about to end refuses, and what comes of
// a refusal ends the process.
inline double numberOf(const Napi::Value& value) {
  double number = 0;
  return napi_get_value_double(value.Env(), value, &number) == napi_ok ? number : 0;
}
inline int64_t integerOf(const Napi::Value& value) {
  int64_t number = 0;
  return napi_get_value_int64(value.Env(), value, &number) == napi_ok ? number : 0;
}

template <class Body>
napi_value enter(napi_env env, Body body) {
  try {
    return body();
  } catch (const std::exception&) {
    napi_throw_range_error(env, kOutOfMemoryCode, "memory is out");
    return nullptr;
  }
}

template <Napi::Value (*call)(const Napi::CallbackInfo&)>
napi_value functionEntry(napi_env env, napi_callback_info info) {
  return enter(env, [&]() -> napi_value { return call(Napi::CallbackInfo(env, info)); });
}

template <class T, Napi::Value (T::*method)(const Napi::CallbackInfo&)>
napi_value methodEntry(napi_env env, napi_callback_info info) {
  return enter(env, [&]() -> napi_value {
    const Napi::CallbackInfo call(env, info);
    T* const instance = T::Unwrap(call.This().template As<Napi::Object>());
    return instance ? (instance->*method)(call) : Napi::Value();
  });
}

// Of a Napi::ObjectWrap. Its own way in calls `new`, and could only throw.
template <class T>
napi_value constructorEntry(napi_env env, napi_callback_info info) {
  return enter(env, [&]() -> napi_value {
    const Napi::CallbackInfo call(env, info);
    if (!call.IsConstructCall()) {
      napi_throw_type_error(env, nullptr, "a class constructor needs 'new'");
      return nullptr;
    }
    T* const instance = new T(call);
    if (!call.Env().IsExceptionPending()) return call.This();
    const Napi::Error error = call.Env().GetAndClearPendingException();  // else the wrap could not be removed
    delete instance;
    error.ThrowAsJavaScriptException();
    return nullptr;
  });
}

template <Napi::Value (*call)(const Napi::CallbackInfo&)>
void exportFunction(Napi::Object exports, const char* name) {
  napi_value function = nullptr;
  if (napi_create_function(exports.Env(), name, NAPI_AUTO_LENGTH, functionEntry<call>, nullptr, &function) != napi_ok) return;
  exports.Set(name, Napi::Value(exports.Env(), function));
}

}  // namespace sdpa
