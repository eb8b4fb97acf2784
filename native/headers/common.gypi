# Stands in for Node's own common.gypi where Node came without its headers (scripts/setup.mjs). The addon uses
# Node-API only, so the headers of the node-api-headers package are enough; flags are in native/isa.json.
{
  'target_defaults': {
    'default_configuration': 'Release',
    'configurations': {
      'Debug': { 'cflags': ['-g', '-O0'] },
      'Release': {},
    },
    'xcode_settings': { 'GCC_ENABLE_CPP_EXCEPTIONS': 'NO', 'GCC_ENABLE_CPP_RTTI': 'NO', 'CLANG_CXX_LIBRARY': 'libc++' },
  },
}
