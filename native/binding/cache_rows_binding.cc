// The rows of a cache, for files: restore(), copyRowsOut(), copyRowsIn() of the addon's KvCache.
#include "binding/entry.h"
#include "binding/kv_cache_binding.h"
#include "runtime/kv_rows.h"

namespace sdpa {
namespace {

// The arguments (which: 0 keys, 1 values; first row; bytes) of copyRowsOut and copyRowsIn.
struct RowsArgument {
  bool values = false;
  int64_t first = 0, count = 0;
  uint8_t* bytes = nullptr;

  // False, with a pending exception, unless the bytes are whole rows that the cache keeps.
  bool read(const Napi::CallbackInfo& info, const KvTokens& tokens) {
    const Span span = Span::from(info.Env(), info[2]);
    values = static_cast<int>(integerOf(info[0])) == 1;
    first = integerOf(info[1]);
    bytes = static_cast<uint8_t*>(span.data);
    const int64_t rowBytes = fileRowBytes(tokens, values), rows = fileRows(tokens);
    count = span.length * span.elementBytes / rowBytes;
    if (span.given && count * rowBytes == span.length * span.elementBytes && first >= 0 && first <= rows &&
        count <= rows - first) {
      return true;
    }
    Napi::RangeError::New(info.Env(), "the cache does not hold these rows").ThrowAsJavaScriptException();
    return false;
  }
};

}  // namespace

Napi::Value KvCacheBinding::restore(const Napi::CallbackInfo& info) {
  const bool done = tokens_.restore(integerOf(info[0]), integerOf(info[1]));
  reportMemory(info.Env());
  return Napi::Boolean::New(info.Env(), done);
}

Napi::Value KvCacheBinding::copyRowsOut(const Napi::CallbackInfo& info) {
  RowsArgument rows;
  if (rows.read(info, tokens_)) sdpa::copyRowsOut(tokens_, rows.values, rows.first, rows.count, rows.bytes);
  return info.Env().Undefined();
}

Napi::Value KvCacheBinding::copyRowsIn(const Napi::CallbackInfo& info) {
  RowsArgument rows;
  if (rows.read(info, tokens_)) sdpa::copyRowsIn(tokens_, rows.values, rows.first, rows.count, rows.bytes);
  return info.Env().Undefined();
}

}  // namespace sdpa
