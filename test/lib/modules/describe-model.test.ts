import { describe, expect, test } from 'vitest';
import { OptionError } from '../../../lib/errors.ts';
import { describeModel, kvCacheBytes, type ModelDescription } from '../../../lib/modules/describe-model.ts';
import { presetConfig } from '../../../lib/modules/presets.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const llama = { model_type: 'llama', num_hidden_layers: 4, hidden_size: 64, num_attention_heads: 4 };

const kinds = (model: ModelDescription) => model.layers.map((layer) => layer.kind[0]).join('');

describe('describeModel', () => {
  test('Llama 3: grouped queries, cache bytes, projections', () => {
    const model = describeModel(presetConfig('llama3-8b'));
    expect(model).toMatchObject({
      modelType: 'llama',
      ...{
        numLayers: 32,
        hiddenSize: 4096,
        numHeads: 32,
        numKvHeads: 8,
        groupSize: 4,
        headDim: 128,
        valueDim: 128,
      },
      ...{ scale: 1 / Math.sqrt(128), softcap: 0, causal: true, sinks: false, alibi: false, absorbed: null },
      ...{ ropeTheta: 500000, ropeDim: 128, ropeScaling: null, maxPosition: 8192, linearStateBytes: 0 },
      kvBytesPerToken: {
        float32: 256 * KIB,
        float16: 128 * KIB,
        bfloat16: 128 * KIB,
        int8: 64 * KIB + 32 * 8 * 2 * 4,
      },
      attentionParameters: { q: 32 * 4096 ** 2, k: 32 * 4096 * 1024, v: 32 * 4096 * 1024, o: 32 * 4096 ** 2 },
    });
    const { q, k, v, o, total } = model.attentionParameters;
    expect(total).toBe(q + k + v + o);
  });

  test('Qwen3.6: three gated delta layers to one gated full layer, partial rotation', () => {
    const model = describeModel(presetConfig('qwen3.6-27b'));
    expect(kinds(model)).toBe('lllf'.repeat(16));
    expect(model).toMatchObject({
      modelType: 'qwen3_5',
      numHeads: 24,
      numKvHeads: 4,
      groupSize: 6,
      headDim: 256,
    });
    expect(model).toMatchObject({ ropeTheta: 1e7, ropeDim: 64, ropeScaling: null, scale: 1 / 16 });
    expect(model.kvBytesPerToken.bfloat16).toBe(64 * KIB);
    expect(model.linearStateBytes).toBe(144 * MIB);
    expect(model.attentionParameters.q).toBe(2 * 16 * 5120 * 24 * 256);
    expect(model.attentionParameters.o).toBe(16 * 5120 * 24 * 256);
    const { layer_types: _, ...text } = presetConfig('qwen3.6-27b').text_config as Record<string, unknown>;
    expect(describeModel({ ...text, model_type: 'qwen3_5' }).layers).toEqual(model.layers);
  });

  test('gpt-oss: sinks, alternating windows, the ready scaling of rope', () => {
    const model = describeModel(presetConfig('gpt-oss-20b'));
    expect(model).toMatchObject({ sinks: true, groupSize: 8, ropeTheta: 150000 });
    expect(model.layers.slice(0, 3).map((layer) => layer.window)).toEqual([128, undefined, 128]);
    expect(model.ropeScaling).toMatchObject({
      rope_type: 'yarn',
      truncate: false,
      max_position_embeddings: 131072,
    });
  });

  test('Gemma 2: windows without layer_types, softcap, its own scale', () => {
    const nine = describeModel(presetConfig('gemma2-9b'));
    expect(kinds(nine)).toBe('sf'.repeat(21));
    expect(nine).toMatchObject({ softcap: 50, scale: 1 / 16 });
    expect(describeModel(presetConfig('gemma2-27b')).scale).toBe(1 / 12);
    expect(describeModel({ ...presetConfig('gemma2-9b'), attn_logit_softcapping: null }).softcap).toBe(0);
  });

  test('Gemma 3: five local layers of theta 1e4 to one scaled global layer', () => {
    const model = describeModel(presetConfig('gemma3-27b'));
    expect(kinds(model)).toBe(`${'sssssf'.repeat(10)}ss`);
    expect(model.scale).toBe(1 / Math.sqrt(168));
    expect(model.layers[0].rope).toEqual({ theta: 10000, dim: 128, scaling: null });
    expect(model.layers[5].rope).toMatchObject({
      theta: 1e6,
      dim: 128,
      scaling: { rope_type: 'linear', factor: 8 },
    });
  });

  test('Gemma 4: global heads of their own, shared keys and values, K = V', () => {
    const model = describeModel(presetConfig('gemma4-12b'));
    expect(model.scale).toBe(1);
    expect(model.layers[0].rope).toEqual({ theta: 10000, dim: 256, scaling: null });
    expect(model.layers[5].rope).toMatchObject({
      theta: 1e6,
      dim: 512,
      scaling: { rope_type: 'proportional' },
    });
    expect(model.attentionParameters.v).toBe(40 * 3840 * 8 * 256);
    const small = describeModel(presetConfig('gemma4-e2b'));
    expect(small.layers.filter((layer) => layer.kvShared)).toHaveLength(20);
    expect(small.layers[14].kvShared).toBeUndefined();
    // 12 local and 3 global layers own a cache.
    expect(small.kvBytesPerToken.bfloat16).toBe(2 * 2 * (12 * 256 + 3 * 512));
    expect(small.attentionParameters.k).toBe(1536 * (12 * 256 + 3 * 512));
  });

  test('DeepSeek-V3: latent cache, expanded and absorbed shapes, scale with mscale squared', () => {
    const model = describeModel(presetConfig('deepseek-v3'));
    expect(model).toMatchObject({ numHeads: 128, numKvHeads: 128, headDim: 192, valueDim: 128, ropeDim: 64 });
    expect(model.absorbed).toEqual({ numKvHeads: 1, headDim: 576, valueDim: 512 });
    expect(model.kvBytesPerToken.bfloat16).toBe(61 * 576 * 2);
    expect(model.scale).toBe((1 / Math.sqrt(192)) * (0.1 * Math.log(40) + 1) ** 2);
    // The published projections of one layer: q_a, q_b, kv_a, kv_b, o.
    const layer = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168;
    expect(model.attentionParameters.total).toBe(61 * layer);
  });

  test('BERT and Whisper: no rotation; an encoder is not causal', () => {
    const bert = describeModel(presetConfig('bert-base'));
    expect(bert).toMatchObject({ causal: false, ropeTheta: null, ropeDim: 0, maxPosition: 512 });
    expect(bert.layers[0].rope).toBeNull();
    const whisper = describeModel(presetConfig('whisper-large'));
    expect(whisper).toMatchObject({
      causal: true,
      hiddenSize: 1280,
      numHeads: 20,
      headDim: 64,
      maxPosition: 448,
    });
    const encoder = { model_type: 'whisper', d_model: 384, encoder_layers: 4, encoder_attention_heads: 6 };
    expect(describeModel(encoder)).toMatchObject({ numLayers: 4, numHeads: 6, headDim: 64 });
  });

  test('GPT-2 and Falcon: older names, multi-query, ALiBi', () => {
    const gpt2 = {
      model_type: 'gpt2',
      n_embd: 768,
      n_layer: 12,
      n_head: 12,
      n_positions: 1024,
      vocab_size: 50257,
    };
    expect(describeModel(gpt2)).toMatchObject({
      numLayers: 12,
      numHeads: 12,
      headDim: 64,
      ropeTheta: null,
      maxPosition: 1024,
    });
    // GPT-2 small's 124.4 million weights less biases and norms.
    expect(describeModel(gpt2).modelParameters).toBe(50257 * 768 + 1024 * 768 + 12 * 12 * 768 ** 2);
    const falcon = {
      model_type: 'falcon',
      hidden_size: 4544,
      n_layer: 32,
      n_head: 71,
      multi_query: true,
      alibi: false,
    };
    expect(describeModel(falcon)).toMatchObject({
      numKvHeads: 1,
      groupSize: 71,
      headDim: 64,
      ropeTheta: 10000,
    });
    const large = {
      ...falcon,
      n_head: 142,
      num_kv_heads: 2,
      hidden_size: 9088,
      new_decoder_architecture: true,
    };
    expect(describeModel(large)).toMatchObject({ numKvHeads: 2, groupSize: 71 });
    expect(describeModel({ ...falcon, alibi: true })).toMatchObject({
      alibi: true,
      ropeTheta: null,
      ropeDim: 0,
    });
  });

  test('Mistral and Qwen2: sliding_window with and without its switches', () => {
    expect(kinds(describeModel({ ...llama, model_type: 'mistral', sliding_window: 4096 }))).toBe('ssss');
    expect(kinds(describeModel({ ...llama, model_type: 'mistral', sliding_window: null }))).toBe('ffff');
    const qwen = { ...llama, model_type: 'qwen2', sliding_window: 4096, max_window_layers: 3 };
    expect(kinds(describeModel(qwen))).toBe('ffff');
    expect(kinds(describeModel({ ...qwen, use_sliding_window: false }))).toBe('ffff');
    expect(kinds(describeModel({ ...qwen, use_sliding_window: true }))).toBe('fffs');
    expect(kinds(describeModel({ ...qwen, use_sliding_window: true, max_window_layers: 0 }))).toBe('ssss');
    const typed = {
      ...llama,
      layer_types: ['sliding_attention', 'full_attention', 'full_attention', 'full_attention'],
    };
    expect(kinds(describeModel({ ...typed, sliding_window: 16 }))).toBe('sfff');
  });

  test('Phi: partial rotation, and Phi-3 LongRoPE with its lengths filled in', () => {
    const phi = { ...llama, model_type: 'phi', hidden_size: 320, partial_rotary_factor: 0.4 };
    expect(describeModel(phi)).toMatchObject({ headDim: 80, ropeDim: 32 });
    const scaling = { type: 'longrope', short_factor: [1], long_factor: [2] };
    const phi3 = { ...llama, model_type: 'phi3', rope_scaling: scaling, max_position_embeddings: 131072 };
    expect(describeModel(phi3).ropeScaling).toMatchObject({
      ...scaling,
      original_max_position_embeddings: 4096,
      max_position_embeddings: 131072,
    });
  });

  test('old Llama files without rope_theta and num_key_value_heads', () => {
    expect(describeModel(llama)).toMatchObject({
      ropeTheta: 10000,
      ropeDim: 16,
      numKvHeads: 4,
      maxPosition: null,
    });
  });

  test('kvCacheBytes stops at the windows', () => {
    const model = describeModel(presetConfig('gpt-oss-20b'));
    const vector = 2 * 8 * 64 * 2;
    expect(kvCacheBytes(model, 100, 'bfloat16')).toBe(24 * 100 * vector);
    expect(kvCacheBytes(model, 8192, 'bfloat16')).toBe(12 * (8192 + 128) * vector);
  });

  test.each<[string, unknown, RegExp]>([
    ['bad JSON', '{"a":\n', /configJson is not valid JSON/],
    ['a list', [], /must be the object of a config.json.*an array/],
    ['null', null, /got null/],
    ['a number', 5, /got 5/],
    ['JSON text of a list', '[1]', /an array/],
    ['nothing', {}, /lacks num_hidden_layers \(or n_layer/],
    [
      'several fields',
      { model_type: 'x', num_hidden_layers: 2 },
      /'x'\) lacks .*num_attention_heads.*; hidden_size \(or/,
    ],
    ['empty text_config', { model_type: 'llava', text_config: { model_type: 'llama' } }, /'llava'\) lacks/],
    ['text', { ...llama, hidden_size: '64' }, /hidden_size must be a positive integer; got '64'/],
    ['a bigint', { ...llama, hidden_size: 64n }, /hidden_size must be a positive integer; got 64/],
    ['zero', { ...llama, num_attention_heads: 0 }, /num_attention_heads must be a positive integer; got 0/],
    ['too many layers', { ...llama, num_hidden_layers: 1e12 }, /at most 10000/],
    [
      'odd split',
      { ...llama, num_attention_heads: 5 },
      /head_dim is missing and hidden_size 64 is no multiple/,
    ],
    ['groups', { ...llama, num_key_value_heads: 3 }, /4 must be a multiple of num_key_value_heads 3/],
    [
      'short layer_types',
      { ...llama, layer_types: ['full_attention'] },
      /each of the 4 layers; got 1 entries/,
    ],
    ['Mamba', { ...llama, layer_types: Array(4).fill('mamba') }, /layer type 'mamba' is not supported/],
    ['no window', { ...llama, layer_types: Array(4).fill('sliding_attention') }, /lacks sliding_window/],
    [
      'no state',
      { ...llama, full_attention_interval: 2 },
      /lacks linear_num_value_heads; .*linear_value_head_dim/,
    ],
    [
      'half a latent',
      { ...llama, kv_lora_rank: 512 },
      /lacks qk_nope_head_dim; qk_rope_head_dim; v_head_dim/,
    ],
    ['scaling', { ...llama, rope_scaling: 'linear' }, /rope_scaling must be an object; got 'linear'/],
    ['rope type', { ...llama, rope_scaling: { type: 'x' } }, /rope_type 'x' is unknown/],
    [
      'a number that is none',
      { ...llama, rope_scaling: { rope_type: 'linear', factor: Infinity } },
      /rope_scaling\.factor must be finite; got Infinity/,
    ],
    [
      'a list that claims to be endless',
      {
        ...llama,
        head_dim: undefined,
        kv_lora_rank: 16,
        rope_scaling: { rope_type: 'dynamic', factor: 4, short_factor: new Array(2 ** 32 - 1) },
      },
      /describeModel/,
    ],
    [
      'one in a list',
      { ...llama, rope_scaling: { rope_type: 'longrope', short_factor: [1, Infinity] } },
      /rope_scaling\.short_factor must be finite/,
    ],
    ['theta', { ...llama, rope_theta: 'big' }, /rope_theta must be a number; got 'big'/],
    ['flag', { ...llama, use_sliding_window: 'no' }, /use_sliding_window must be true or false/],
  ])('refuses %s in one line', (_, config, message) => {
    expect(() => describeModel(config as object)).toThrow(OptionError);
    expect(() => describeModel(config as object)).toThrow(message);
    expect(() => describeModel(config as object)).not.toThrow(/\n/);
  });
});
