# One static library per ISA, each with its own flags (native/isa.json), linked into one addon that chooses at
# run time. To add an ISA: a row in native/isa.json and a stanza here.
{
  'variables': { 'tree': 'node scripts/native-tree.mjs' },
  'target_defaults': {
    'include_dirs': ['native', '<!@(<(tree) headers node-api-headers)'],
    'cflags_cc': ['<!@(<(tree) flags common gcc)'],
    'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags common gcc)'] },
    'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags common msvc)'] } },
    # Late, because Node's common.gypi replaces what is said above: with the version that Node itself was compiled for.
    'target_conditions': [
      ['OS=="mac"', { 'xcode_settings': { 'MACOSX_DEPLOYMENT_TARGET': '11.0' } }],
    ],
    'conditions': [
      ['OS=="linux"', { 'cflags_cc': ['-include', '<(module_root_dir)/native/headers/glibc_floor.h'] }],
    ],
  },
  'targets': [
    {
      'target_name': 'node_sdpa',
      'sources': ['<!@(<(tree) sources binding)', '<!@(<(tree) sources runtime)'],
      'include_dirs': ['<!@(<(tree) headers node-addon-api)'],
      'defines': [
        'NAPI_VERSION=9',
        'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
        # Without it, terminating a worker that has async work in flight aborts the process.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        'NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED',
      ],
      'cflags_cc': ['<!@(<(tree) flags runtime gcc)'],
      'xcode_settings': {
        'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
        'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags runtime gcc)'],
      },
      'msvs_settings': { 'VCCLCompilerTool': { 'ExceptionHandling': 1 } },
      'dependencies': ['isa_portable'],
      'conditions': [
        ['target_arch=="x64"', { 'dependencies': ['isa_avx2', 'isa_avx512', 'isa_avx512bf16', 'isa_amx'] }],
        ['target_arch=="arm64"', { 'dependencies': ['isa_neon'] }],
        ['OS=="linux"', { 'ldflags': ['-pthread'], 'libraries': ['-ldl'] }],
        ['OS=="win"', { 'defines': ['_HAS_EXCEPTIONS=1'] }],
      ],
    },
    {
      'target_name': 'isa_portable',
      'type': 'static_library',
      'win_delay_load_hook': 'false',
      'sources': ['native/isa/portable.cc'],
      'cflags_cc': ['<!@(<(tree) flags portable gcc)'],
      'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags portable gcc)'] },
      'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags portable msvc)'] } },
    },
  ],
  'conditions': [
    ['target_arch=="x64"', {
      'targets': [
        {
          'target_name': 'isa_avx2',
          'type': 'static_library',
          'win_delay_load_hook': 'false',
          'sources': ['native/isa/avx2.cc'],
          'cflags_cc': ['<!@(<(tree) flags avx2 gcc)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags avx2 gcc)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags avx2 msvc)'] } },
        },
        {
          'target_name': 'isa_avx512',
          'type': 'static_library',
          'win_delay_load_hook': 'false',
          'sources': ['native/isa/avx512.cc'],
          'cflags_cc': ['<!@(<(tree) flags avx512 gcc)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags avx512 gcc)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags avx512 msvc)'] } },
        },
        {
          'target_name': 'isa_avx512bf16',
          'type': 'static_library',
          'win_delay_load_hook': 'false',
          'sources': ['native/isa/avx512bf16.cc'],
          'cflags_cc': ['<!@(<(tree) flags avx512bf16 gcc)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags avx512bf16 gcc)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags avx512bf16 msvc)'] } },
        },
        {
          'target_name': 'isa_amx',
          'type': 'static_library',
          'win_delay_load_hook': 'false',
          'sources': ['native/isa/amx.cc'],
          'cflags_cc': ['<!@(<(tree) flags amx gcc)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags amx gcc)'] },
          'msvs_settings': { 'VCCLCompilerTool': { 'AdditionalOptions': ['<!@(<(tree) flags amx msvc)'] } },
        },
      ],
    }],
    ['target_arch=="arm64"', {
      'targets': [
        {
          'target_name': 'isa_neon',
          'type': 'static_library',
          'win_delay_load_hook': 'false',
          'sources': ['native/isa/neon.cc'],
          'cflags_cc': ['<!@(<(tree) flags neon gcc)'],
          'xcode_settings': { 'OTHER_CPLUSPLUSFLAGS': ['<!@(<(tree) flags neon gcc)'] },
        },
      ],
    }],
  ],
}
