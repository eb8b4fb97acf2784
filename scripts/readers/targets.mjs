// What is read, each with files to begin with, words of its format, and what must hold of any bytes.
import { isDeepStrictEqual } from 'node:util';
import zlib from 'node:zlib';
import * as sdpa from '../../dist/index.js';

const { KVCache, SdpaError, Tensor } = sdpa;
const crc32 = zlib.crc32 ?? (await import('../../dist/crc32.js')).crc32InTypeScript;

/** What a reader gives, or the SdpaError that it throws; any other error is thrown on. */
function outcome(read) {
  try {
    return { value: read() };
  } catch (error) {
    if (error instanceof SdpaError) return { error };
    throw error;
  }
}

async function outcomeAsync(read) {
  try {
    return { value: await read() };
  } catch (error) {
    if (error instanceof SdpaError) return { error };
    throw error;
  }
}

function check(holds, what) {
  if (!holds) throw new Error(`does not hold: ${what}`);
}

/** As FileHandle, reads of which are short. */
function fileOf(bytes, most = 997) {
  let stands = 0;
  return {
    async read(buffer, offset, length, position) {
      const from = position ?? stands;
      const bytesRead = Math.max(0, Math.min(length, most, bytes.length - from));
      buffer.set(bytes.subarray(from, from + bytesRead), offset);
      if (position === null) stands += bytesRead;
      return { bytesRead };
    },
    stat: async () => ({ size: bytes.length }),
  };
}

const sameTensor = (a, b) =>
  a.dtype === b.dtype && isDeepStrictEqual(a.shape, b.shape) && Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
const bytesOf = (tensor) => {
  const { data } = tensor.clone();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
};

const DTYPES = ['float32', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'bool'];

const npy = {
  seeds: () => [
    ...DTYPES.map((dtype) => sdpa.writeNpy(Tensor.arange([2, 3], { dtype }))),
    sdpa.writeNpy(Tensor.zeros([])),
    sdpa.writeNpy(Tensor.zeros([0, 4])),
    ...['<f8', '>f4', '<i8', '|V2', '<u2'].map((descr) =>
      Buffer.from(
        Buffer.from(sdpa.writeNpy(Tensor.arange([2, 4])))
          .toString('latin1')
          .replace('<f4', descr),
        'latin1',
      ),
    ),
    Buffer.from(
      Buffer.from(sdpa.writeNpy(Tensor.arange([2, 3])))
        .toString('latin1')
        .replace('False', 'True '),
      'latin1',
    ),
  ],
  words: [
    '(',
    ')',
    ',',
    "'",
    '"',
    '{',
    '}',
    ' ',
    'True',
    'False',
    "'descr'",
    "'shape'",
    "'fortran_order'",
    ':',
    '3L',
    '-1',
    '<f4',
    '>f2',
    '|V2',
    '\n',
    '\\',
    '\x93NUMPY\x01\0',
    '\x93NUMPY\x02\0',
    '\x93NUMPY\x03\0',
    '(2, 3)',
    '()',
    '(0,)',
    '[',
    ']',
    'u',
    '1e3',
    '0x1',
  ],
  /** The length of the header, up to the line's end that closes it. */
  fix(bytes) {
    const end = bytes.indexOf(10) + 1;
    if (end > 12 && bytes[6] === 1 && end - 10 < 65536) bytes.writeUInt16LE(end - 10, 8);
    else if (end > 12) bytes.writeUInt32LE(end - 12, 8);
    return bytes;
  },
  async run(bytes) {
    for (const dtype of [undefined, 'bfloat16', 'float32']) {
      const options = { dtype };
      const read = outcome(() => sdpa.readNpy(bytes, options));
      const streamed = await outcomeAsync(() => sdpa.readNpyFrom(fileOf(bytes), options));
      if (!read.value) continue;
      check(
        streamed.value && sameTensor(read.value, streamed.value),
        'bytes and a file give the same tensor',
      );
      const again = sdpa.readNpy(sdpa.writeNpy(read.value), { dtype: read.value.dtype });
      check(sameTensor(again, read.value), 'what is written again reads equal');
    }
  },
};

const safetensors = {
  seeds: () => [
    sdpa.writeSafetensors({}),
    sdpa.writeSafetensors(
      Object.fromEntries(DTYPES.map((dtype) => [dtype, Tensor.arange([2, 2], { dtype })])),
      { a: 'b' },
    ),
    sdpa.writeSafetensors({
      scalar: Tensor.zeros([]),
      none: Tensor.zeros([0, 3]),
      'q"\\é': Tensor.arange([3]),
    }),
    Buffer.from(
      Buffer.from(sdpa.writeSafetensors({ a: Tensor.arange([4]) }))
        .toString('latin1')
        .replace('F32","shape":[4]', 'F64","shape":[2]'),
      'latin1',
    ),
    Buffer.from(
      Buffer.from(sdpa.writeSafetensors({ a: Tensor.arange([4]) }))
        .toString('latin1')
        .replace('F32","shape":[4]', 'I64","shape":[2]'),
      'latin1',
    ),
  ],
  words: [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    ' ',
    '\\',
    '\\u0061',
    '\\ud800',
    '__metadata__',
    '__proto__',
    '"dtype"',
    '"shape"',
    '"data_offsets"',
    '"F32"',
    '"BF16"',
    '"I64"',
    '"F8_E4M3"',
    '"F4"',
    '"BOOL"',
    '[0,4]',
    '[4,8]',
    '[]',
    '-1',
    '1e9',
    '0.5',
    'null',
    'true',
    '\xff',
  ],
  /** The length of the header, up to the last brace that could end it. */
  fix(bytes) {
    const end = bytes.indexOf('}}', 8) + 2;
    if (end > 2 && bytes.length >= 8)
      bytes.writeBigUInt64LE(BigInt(bytes.indexOf(' ', end) < 0 ? end - 8 : end - 8), 0);
    return bytes;
  },
  async run(bytes) {
    for (const dtype of [undefined, 'float32']) {
      const read = outcome(() => sdpa.readSafetensors(bytes, { dtype }));
      const opened = await outcomeAsync(() => sdpa.openSafetensors(fileOf(bytes)));
      if (read.value) check(opened.value, 'a file opens whose bytes can be read');
      for (const name of opened.value?.names ?? []) {
        const streamed = await outcomeAsync(() => opened.value.read(name, { dtype }));
        if (read.value)
          check(
            streamed.value && sameTensor(read.value.tensors[name], streamed.value),
            'bytes and a file give the same tensor',
          );
        await outcomeAsync(() => opened.value.read(name, { dtype: 'int8', start: 1, end: -1 }));
      }
      if (!read.value) continue;
      const { tensors, metadata } = read.value;
      const again = sdpa.readSafetensors(sdpa.writeSafetensors(tensors, metadata));
      check(
        isDeepStrictEqual(Object.keys(again.tensors).sort(), Object.keys(tensors).sort()),
        'the names are written',
      );
      check(isDeepStrictEqual({ ...again.metadata }, { ...metadata }), 'the metadata is written');
      for (const name of Object.keys(tensors))
        check(sameTensor(again.tensors[name], tensors[name]), 'what is written again reads equal');
    }
  },
};

function savedCache(options, tokens, drop = 0) {
  const cache = new KVCache({ numKvHeads: 2, headDim: 5, backend: 'reference', ...options });
  const shape = [options.batch ?? 1, 2, tokens];
  cache.append(
    Tensor.randn([...shape, 5], { seed: 1 }),
    Tensor.randn([...shape, options.valueDim ?? 5], { seed: 2 }),
    options.batch ? { lengths: [tokens, tokens - 1] } : undefined,
  );
  if (drop > 0) cache.truncate(tokens - drop);
  const bytes = cache.save();
  cache.dispose();
  return bytes;
}

const cache = {
  seeds: () => [
    ...['float32', 'float16', 'bfloat16', 'int8'].map((dtype) => savedCache({ dtype }, 3, 1)),
    savedCache({ maxLength: 9, valueDim: 3 }, 4),
    savedCache({ window: 4, sinkTokens: 1, dtype: 'int8' }, 9),
    savedCache({ batch: 2 }, 3),
  ],
  words: [
    '\0\0\0\0\0\0\0\0',
    '\x01\0\0\0\0\0\0\0',
    '\x02\0\0\0\0\0\0\0',
    '\xff\xff\xff\xff\xff\xff\x1f\0',
    '\0\0\x80\x7f',
    '\0\0\xc0\x7f',
    '\x80',
  ],
  /** Both checksums. */
  fix(bytes) {
    if (bytes.length < 24) return bytes;
    const headerEnd = bytes.readUInt32LE(12) - 4;
    if (headerEnd < 16 || headerEnd + 4 > bytes.length - 4) return bytes;
    bytes.writeUInt32LE(crc32(bytes.subarray(0, headerEnd)), headerEnd);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, bytes.length - 4)), bytes.length - 4);
    return bytes;
  },
  async run(bytes) {
    for (const backend of ['reference', 'auto']) {
      const read = outcome(() => KVCache.load(bytes, { backend }));
      const streamed = await outcomeAsync(() => KVCache.loadFrom(fileOf(bytes), { backend }));
      check(!read.value || streamed.value, 'bytes and a file give the same cache');
      for (const { value } of [read, streamed]) {
        if (!value) continue;
        const again = Buffer.from(value.save());
        // A file may go on behind the cache, and its header may have been longer.
        if (value === read.value) check(again.equals(bytes), 'what is saved again is the same file');
        if (value.length > 0 && value.lengths === undefined) {
          const batch = bytes.readUInt32LE(32);
          if (batch < 4)
            value.attend(Tensor.zeros([batch, bytes.readUInt32LE(40), 1, bytes.readUInt32LE(48)]));
        }
        value.dispose();
      }
      check(sdpa.memoryInfo().caches === 0, 'nothing stays of a cache');
    }
  },
};

const config = {
  seeds: () => [
    ...sdpa.presetNames().map((name) => Buffer.from(JSON.stringify(sdpa.presetConfig(name)))),
    Buffer.from(
      '{"model_type":"llama","num_hidden_layers":2,"hidden_size":64,"num_attention_heads":4,"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":1024}}',
    ),
    Buffer.from(
      '{"text_config":{"model_type":"qwen3_next","num_hidden_layers":4,"hidden_size":64,"num_attention_heads":4,"linear_num_value_heads":2,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":8}}',
    ),
  ],
  words: [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    'null',
    'true',
    '-1',
    '0',
    '1e308',
    '1e-320',
    '0.5',
    '"rope_scaling"',
    '"sliding_window"',
    '"layer_types"',
    '"text_config"',
    '"head_dim"',
    '"num_key_value_heads"',
    '"__proto__"',
    '"longrope"',
    '"llama3"',
    '"linear"',
    '"yarn"',
    '"kv_lora_rank"',
    '"gemma3"',
    '"falcon"',
    '"gpt2"',
    '"deepseek_v3"',
    '"full_attention_interval"',
    '"num_kv_shared_layers"',
    '"moe_intermediate_size"',
  ],
  fix: (bytes) => bytes,
  async run(bytes) {
    const text = bytes.toString();
    const described = outcome(() => sdpa.describeModel(text));
    if (!described.value) return;
    check(
      isDeepStrictEqual(sdpa.describeModel(JSON.parse(text)), described.value),
      'text and object are described alike',
    );
    check(
      isDeepStrictEqual(JSON.parse(JSON.stringify(described.value)), described.value),
      'a description survives JSON',
    );
    check(described.value.layers.length === described.value.numLayers, 'each layer is described');
    for (const dtype of ['float32', 'int8']) {
      const bytes = outcome(() => sdpa.kvCacheBytes(described.value, 1000, dtype)).value;
      check(bytes === undefined || bytes >= 0, 'a cache has bytes');
    }
  },
};

export const TARGETS = { npy, safetensors, cache, config };
