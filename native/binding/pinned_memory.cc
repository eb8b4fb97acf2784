// Node-API cannot share the memory of an ArrayBuffer, but V8 can: by ArrayBuffer::GetBackingStore, the same since
// Node 14. What is declared below of V8 yields the names of two of its symbols. Both are weak: they are null in an
// engine that lacks them, and the addon loads there all the same.
//
// `New` is never called. Its name spells the std::shared_ptr of the C++ library that the engine was built with. Where
// the engine has it as this compiler spells it, the library is ours, and so is the meaning of what GetBackingStore returns.
#include "binding/pinned_memory.h"

#include <atomic>

#if defined(__GNUC__)

namespace v8 {

class BackingStore;
class Isolate;
template <class T>
class Local;

class ArrayBuffer {
 public:
  __attribute__((weak)) static Local<ArrayBuffer> New(Isolate*, std::shared_ptr<BackingStore>);
  __attribute__((weak)) std::shared_ptr<BackingStore> GetBackingStore();
};

}  // namespace v8

namespace sdpa {
namespace {

bool canPin() {
  using New = v8::Local<v8::ArrayBuffer> (*)(v8::Isolate*, std::shared_ptr<v8::BackingStore>);
  static const New volatile sameLibrary = &v8::ArrayBuffer::New;
  return sameLibrary != nullptr;
}

// A napi_value is the address of a handle, as is the `this` of a V8 object.
std::shared_ptr<void> pin(napi_value buffer) { return reinterpret_cast<v8::ArrayBuffer*>(buffer)->GetBackingStore(); }

}  // namespace
}  // namespace sdpa

#else

namespace sdpa {
namespace {

bool canPin() { return false; }
std::shared_ptr<void> pin(napi_value) { return {}; }

}  // namespace
}  // namespace sdpa

#endif

namespace sdpa {
namespace {

std::atomic<bool> isAllowed{true};

}  // namespace

Hold holdMemory(Napi::Env env, napi_value value, std::shared_ptr<void>& share) {
  bool isTypedArray = false, isArrayBuffer = false;
  napi_value buffer;
  if (napi_is_typedarray(env, value, &isTypedArray) != napi_ok || !isTypedArray) return Hold::kStays;
  if (napi_get_typedarray_info(env, value, nullptr, nullptr, nullptr, &buffer, nullptr) != napi_ok ||
      napi_is_arraybuffer(env, buffer, &isArrayBuffer) != napi_ok) {
    return Hold::kMayGo;
  }
  if (!isArrayBuffer) return Hold::kStays;  // a SharedArrayBuffer, which nobody can transfer
  if (!canPin() || !isAllowed.load(std::memory_order_relaxed)) return Hold::kMayGo;
  share = pin(buffer);
  return Hold::kPinned;
}

Napi::Value pinsMemory(const Napi::CallbackInfo& info) {
  if (info[0].IsBoolean()) isAllowed.store(info[0].As<Napi::Boolean>().Value(), std::memory_order_relaxed);
  return Napi::Boolean::New(info.Env(), canPin() && isAllowed.load(std::memory_order_relaxed));
}

}  // namespace sdpa
