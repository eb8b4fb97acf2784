import { describe, expect, test } from 'vitest';
import { OptionError } from '../../../lib/errors.ts';
import { describeModel, type ModelDescription } from '../../../lib/modules/describe-model.ts';

const plain = { num_hidden_layers: 8, hidden_size: 64, num_attention_heads: 4, vocab_size: 100 };
const kinds = (model: ModelDescription) => model.layers.map((layer) => layer.kind[0]).join('');
/** r: a layer with rotary embedding; a point: one without. */
const rotary = (model: ModelDescription) => model.layers.map(({ rope }) => (rope ? 'r' : '.')).join('');
const billions = (model: ModelDescription) =>
  model.modelParameters === null ? null : Math.round(model.modelParameters / 1e7) / 100;

describe('describeModel, family by family', () => {
  test.each<[string, object]>([
    ['Jamba', { attn_layer_period: 8, attn_layer_offset: 4 }],
    ['Bamba', { attn_layer_indices: [1, 5] }],
    ['Zamba 2', { layers_block_type: ['mamba', 'hybrid'] }],
    ['Nemotron-H', { hybrid_override_pattern: 'M-M*' }],
    ['RecurrentGemma', { block_types: ['recurrent', 'attention'] }],
    ['MiniMax-01', { attn_type_list: [0, 0, 0, 1] }],
    ['the first LFM2', { full_attn_idxs: [2, 5] }],
    ['GPT-Neo', { attention_types: [[['global', 'local'], 4]] }],
    ['ModernBERT', { global_attn_every_n_layers: 3, local_attention: 128 }],
    ['Phi-3 small', { dense_attention_every_n_layers: 2 }],
    ['Llama 4', { attention_chunk_size: 8192 }],
    ['MiMo-V2', { hybrid_layer_pattern: [0, 1], sliding_window: 128 }],
    ['Ring linear', { layer_group_size: 5 }],
    ['Longformer', { attention_window: [512] }],
    ['Falcon-H1', { mamba_d_ssm: 3072 }],
    ['Kimi Linear', { linear_attn_config: { full_attn_layers: [4] } }],
    ['Nemotron NAS', { block_configs: [{}] }],
    ['Step3', { num_attention_groups: 1 }],
    ['Llama 3.2 Vision', { cross_attention_layers: [3] }],
    ['DeepSeek-V4', { compress_ratios: [0, 4, 128] }],
    ['Hunyuan-Large', { use_cla: true, cla_share_factor: 2 }],
  ])('%s arranges its layers in its own way: refused by that name', (_, fields) => {
    const name = Object.keys(fields)[0];
    expect(() => describeModel({ ...plain, ...fields })).toThrow(OptionError);
    expect(() => describeModel({ ...plain, ...fields })).toThrow(new RegExp(`${name}.* not supported`));
    const off = Object.fromEntries(Object.keys(fields).map((key) => [key, key === 'use_cla' ? false : null]));
    expect(kinds(describeModel({ ...plain, ...off }))).toBe('ffffffff');
    expect(kinds(describeModel({ ...plain, [name]: [] }))).toBe('ffffffff');
  });

  test.each([
    ...['mamba2', 'xlstm', 'jetmoe', 'hrm_text', 'mimo_v2_flash'],
    ...['mobilebert', 'squeezebert', 'convbert', 'funnel'],
  ])('%s has layers of its own: refused by its model_type', (model_type) => {
    expect(() => describeModel({ ...plain, model_type })).toThrow(OptionError);
    expect(() => describeModel({ ...plain, model_type })).toThrow(
      `model_type '${model_type}' is not supported`,
    );
  });

  test('ALBERT has the projections of its groups, whatever the number of layers', () => {
    const albert = { ...plain, model_type: 'albert', embedding_size: 16 };
    expect(describeModel(albert).attentionParameters.total).toBe(4 * 64 * 64);
    expect(describeModel({ ...albert, num_hidden_groups: 2 }).attentionParameters.q).toBe(2 * 64 * 64);
  });

  test('mlp_layer_types say which layers have experts', () => {
    const types = ['dense', ...Array(46).fill('sparse')];
    const glm = {
      ...{ model_type: 'glm4_moe_lite', hidden_size: 2048, num_hidden_layers: 47, num_attention_heads: 20 },
      ...{
        kv_lora_rank: 512,
        q_lora_rank: 768,
        qk_nope_head_dim: 192,
        qk_rope_head_dim: 64,
        v_head_dim: 256,
      },
      ...{ intermediate_size: 10240, moe_intermediate_size: 1536, n_routed_experts: 64, n_shared_experts: 1 },
      ...{ vocab_size: 154880, tie_word_embeddings: false },
    };
    expect(billions(describeModel({ ...glm, mlp_layer_types: types }))).toBe(29.94);
    expect(billions(describeModel({ ...glm, first_k_dense_replace: 1 }))).toBe(29.94);
    expect(billions(describeModel({ ...glm, mlp_layer_types: types.slice(1) }))).toBe(null);
    expect(billions(describeModel({ ...glm, mlp_layer_types: Array(47).fill('hash_moe') }))).toBe(null);
  });

  test('layer_types speak for the layers, whatever fields of other kinds stand beside them', () => {
    const granite = {
      ...plain,
      model_type: 'granitemoehybrid',
      mamba_d_state: 128,
      layer_types: Array(8).fill('attention'),
    };
    expect(kinds(describeModel(granite))).toBe('ffffffff');
    expect(rotary(describeModel({ ...granite, position_embedding_type: 'nope' }))).toBe('........');
    expect(() => describeModel({ ...plain, layer_types: Array(8).fill('chunked_attention') })).toThrow(
      /'chunked_attention'/,
    );
  });

  test('MPT and DBRX keep their heads in attn_config', () => {
    const mpt = {
      model_type: 'mpt',
      d_model: 4096,
      n_heads: 32,
      n_layers: 32,
      max_seq_len: 2048,
      vocab_size: 50432,
    };
    const seven = describeModel({
      ...mpt,
      attn_config: { alibi: true, attn_type: 'multihead_attention', softmax_scale: null },
    });
    expect(seven).toMatchObject({ alibi: true, numKvHeads: 32, ropeTheta: null });
    expect(billions(seven)).toBe(6.65);
    const attention = { alibi: false, attn_type: 'multiquery_attention', softmax_scale: 0.5 };
    expect(describeModel({ ...mpt, attn_config: attention })).toMatchObject({
      alibi: false,
      numKvHeads: 1,
      scale: 0.5,
    });
    const dbrx = {
      model_type: 'dbrx',
      d_model: 6144,
      n_heads: 48,
      n_layers: 40,
      max_seq_len: 32768,
      vocab_size: 100352,
    };
    const model = describeModel({ ...dbrx, attn_config: { kv_n_heads: 8, rope_theta: 500000 } });
    expect(model).toMatchObject({ numKvHeads: 8, groupSize: 6, ropeTheta: 500000, modelParameters: null });
  });

  test('Cohere 2, EXAONE 4 and SmolLM3 leave positions out of some layers', () => {
    const cohere = { ...plain, model_type: 'cohere2', sliding_window: 16 };
    expect(kinds(describeModel(cohere))).toBe('sssfsssf');
    expect(rotary(describeModel(cohere))).toBe('rrr.rrr.');
    const types = kinds(describeModel(cohere))
      .split('')
      .map((kind) => (kind === 's' ? 'sliding_attention' : 'full_attention'));
    const exaone = { ...plain, model_type: 'exaone4', sliding_window: 16, layer_types: types };
    expect(rotary(describeModel(exaone))).toBe('rrr.rrr.');
    expect(rotary(describeModel({ ...plain, model_type: 'exaone4', sliding_window: null }))).toBe('rrrrrrrr');
    const smol = { ...plain, model_type: 'smollm3' };
    expect(rotary(describeModel(smol))).toBe('rrr.rrr.');
    expect(rotary(describeModel({ ...smol, no_rope_layers: [0, 1, 1, 1, 1, 1, 1, 0, 1] }))).toBe('.rrrrrr.');
    expect(rotary(describeModel({ ...smol, no_rope_layer_interval: 2 }))).toBe('r.r.r.r.');
  });

  test('LongCat-Flash: each of num_layers has two attentions', () => {
    const latent = {
      kv_lora_rank: 512,
      q_lora_rank: 1536,
      qk_nope_head_dim: 128,
      qk_rope_head_dim: 64,
      v_head_dim: 128,
    };
    const { num_hidden_layers: _, ...rest } = plain;
    const longcat = { ...rest, ...latent, model_type: 'longcat_flash', num_layers: 28 };
    expect(describeModel(longcat).kvBytesPerToken.bfloat16).toBe(56 * 576 * 2);
    expect(describeModel({ ...longcat, num_hidden_layers: 56 }).numLayers).toBe(56);
  });

  test('per_layer_config: heads and windows of single layers, as transformers writes Gemma 4', () => {
    const gemma = {
      ...{ ...plain, model_type: 'gemma4_text', num_key_value_heads: 2, head_dim: 16, sliding_window: 8 },
      ...{
        layer_types: Array.from({ length: 8 }, (_, i) =>
          i % 4 === 3 ? 'full_attention' : 'sliding_attention',
        ),
      },
      attention_k_eq_v: true,
    };
    const global = { head_dim: 32, num_key_value_heads: 1 };
    const written = describeModel({
      model_type: 'gemma4',
      text_config: { ...gemma, per_layer_config: { '03': global, '07': global } },
    });
    expect(written).toMatchObject({ numKvHeads: 1, groupSize: 4, headDim: 32, valueDim: 32 });
    expect(written.layers[0]).toMatchObject({ numKvHeads: 2, headDim: 16, window: 8 });
    const stated = { ...gemma, global_head_dim: 32, num_global_key_value_heads: 1 };
    expect(written.layers).toEqual(describeModel(stated).layers);

    const mistral = { ...plain, model_type: 'mistral', sliding_window: 8 };
    const long = { 1: { sliding_window: 64 }, 3: { sliding_window: 64 } };
    const windows = describeModel({ ...mistral, per_layer_config: long }).layers.map((layer) => layer.window);
    expect(windows).toEqual([8, 64, 8, 64, 8, 8, 8, 8]);

    for (const [bad, message] of [
      [{ 8: {} }, /layers 0 to 7; got .* for '8'/],
      [{ '01': 64 }, /got 64 for '01'/],
      [{ 2: { intermediate_size: 64 } }, /replaces 'intermediate_size' of layer 2, which is not supported/],
      [{ 2: { skip: ['attention'] } }, /replaces 'skip'/],
      [{ 2: { sliding_window: null } }, /lacks sliding_window/],
      [{ 2: { num_attention_heads: 3 } }, /head_dim is missing/],
    ] as const) {
      expect(() => describeModel({ ...mistral, per_layer_config: bad })).toThrow(OptionError);
      expect(() => describeModel({ ...mistral, per_layer_config: bad })).toThrow(message);
    }
  });

  test('what stands outside of text_config may speak of sounds: Music Flamingo', () => {
    const audio = { head_dim: 1280, decoder_layers: 6, rope_parameters: { rope_theta: 1200 } };
    const { vocab_size, ...rest } = plain;
    const text = { ...rest, model_type: 'qwen2', intermediate_size: 96 };
    const around = { ...audio, model_type: 'musicflamingo', tie_word_embeddings: true, vocab_size };
    const { modelType, ...inside } = describeModel({ ...around, text_config: text });
    expect(modelType).toBe('musicflamingo');
    expect(describeModel({ ...text, tie_word_embeddings: true, vocab_size })).toMatchObject(inside);
  });

  test('OLMo 3 without layer_types: every fourth layer is full', () => {
    expect(kinds(describeModel({ ...plain, model_type: 'olmo3', sliding_window: 4096 }))).toBe('sssfsssf');
  });

  test('Gemma 3n: scale 1, layers that share keys and values, a feed-forward width for each layer', () => {
    const model = describeModel({
      model_type: 'gemma3n',
      text_config: {
        ...{
          model_type: 'gemma3n_text',
          hidden_size: 2048,
          num_hidden_layers: 35,
          num_attention_heads: 8,
          num_key_value_heads: 2,
        },
        ...{
          intermediate_size: Array(35).fill(16384),
          num_kv_shared_layers: 15,
          sliding_window: 512,
          vocab_size: 262400,
        },
        hidden_size_per_layer_input: 256,
      },
    });
    expect(model).toMatchObject({ headDim: 256, scale: 1, modelParameters: null });
    expect(model.kvBytesPerToken.bfloat16).toBe(20 * 2 * 2 * 256 * 2);
  });

  test.each<[string, object, boolean]>([
    ['albert', {}, false],
    ['camembert', {}, false],
    ['mpnet', {}, false],
    ['deberta-v2', {}, false],
    ['esm', {}, false],
    ['vit', {}, false],
    ['nomic_bert', {}, false],
    ['new', { architectures: ['NewForMaskedLM'] }, false],
    ['camembert', { is_decoder: true }, true],
    ['eurobert', { rope_theta: 250000 }, false],
    ['ernie', { type_vocab_size: 4 }, false],
    ['ernie', { type_vocab_size: 4, is_decoder: true }, true],
    ['modernbert-decoder', {}, true],
    ['clip_text_model', {}, true],
    ['llama', { architectures: ['LlamaForCausalLM'] }, true],
  ])('%s %j: causal %s', (model_type, fields, causal) => {
    expect(describeModel({ ...plain, model_type, ...fields }).causal).toBe(causal);
  });

  test.each<[string, object, object]>([
    ['camembert', {}, { ropeDim: 0, alibi: false }],
    ['mpnet', {}, { ropeDim: 0 }],
    ['deberta-v2', {}, { ropeDim: 0 }],
    ['biogpt', {}, { ropeDim: 0 }],
    ['openai-gpt', {}, { ropeDim: 0 }],
    ['ernie', { type_vocab_size: 4 }, { ropeDim: 0 }],
    ['roformer', { type_vocab_size: 2 }, { ropeDim: 16 }],
    ['nomic_bert', { type_vocab_size: 2, rotary_emb_base: 1000 }, { ropeDim: 16, ropeTheta: 1000 }],
    ['new', { type_vocab_size: 2, position_embedding_type: 'rope' }, { ropeDim: 16 }],
    ['esm', { position_embedding_type: 'rotary' }, { ropeDim: 16 }],
    ['esm', { position_embedding_type: 'absolute' }, { ropeDim: 0 }],
    ['jais', { position_embedding_type: 'alibi' }, { ropeDim: 0, alibi: true }],
    ['baichuan', { hidden_size: 5120, num_attention_heads: 40 }, { ropeDim: 0, alibi: true }],
    ['baichuan', { hidden_size: 4096, num_attention_heads: 32 }, { ropeDim: 128, alibi: false }],
    ['chatglm', { kv_channels: 128, rope_ratio: 500 }, { ropeDim: 64, ropeTheta: 5e6 }],
    ['t5', { num_layers: 24, num_decoder_layers: 8 }, { numLayers: 8 }],
  ])('%s %j: %j', (model_type, fields, expected) => {
    expect(describeModel({ ...plain, model_type, ...fields })).toMatchObject(expected);
  });

  test.each<[string, object, number | null]>([
    [
      'StarCoder2 3B: two matrices, a shared embedding',
      {
        model_type: 'starcoder2',
        hidden_size: 3072,
        intermediate_size: 12288,
        num_hidden_layers: 30,
        num_attention_heads: 24,
        num_key_value_heads: 2,
        vocab_size: 49152,
      },
      3.03,
    ],
    [
      'Nemotron 4 Mini: two matrices',
      {
        model_type: 'nemotron',
        hidden_size: 3072,
        intermediate_size: 9216,
        num_hidden_layers: 32,
        num_attention_heads: 24,
        num_key_value_heads: 8,
        head_dim: 128,
        vocab_size: 256000,
        tie_word_embeddings: false,
      },
      4.19,
    ],
    [
      'Phi-3.5 MoE: three',
      {
        model_type: 'phimoe',
        hidden_size: 4096,
        intermediate_size: 6400,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        num_local_experts: 16,
        vocab_size: 32064,
        tie_word_embeddings: false,
      },
      41.87,
    ],
    [
      'Phi-2: two',
      {
        model_type: 'phi',
        hidden_size: 2560,
        intermediate_size: 10240,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        vocab_size: 51200,
        tie_word_embeddings: false,
      },
      2.78,
    ],
    [
      'Qwen 7B: intermediate_size is that of both gated halves',
      {
        model_type: 'qwen',
        hidden_size: 4096,
        intermediate_size: 22016,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        vocab_size: 151936,
        tie_word_embeddings: false,
      },
      7.72,
    ],
    [
      'OPT 350M: embeddings of another width',
      {
        model_type: 'opt',
        hidden_size: 1024,
        ffn_dim: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        vocab_size: 50272,
        word_embed_proj_dim: 512,
      },
      null,
    ],
    [
      'ALBERT: one layer again and again',
      { ...plain, model_type: 'albert', intermediate_size: 256, embedding_size: 16 },
      null,
    ],
    [
      'experts under other names',
      { ...plain, model_type: 'ernie4_5_moe', intermediate_size: 256, moe_num_experts: 8 },
      null,
    ],
    ['ESM C: three matrices, unlike ESM', { ...plain, model_type: 'esmc', intermediate_size: 256 }, null],
    ['a family that is not known', { ...plain, model_type: 'somebody_new', intermediate_size: 256 }, null],
  ])('weights of %s', (_, config, expected) => {
    expect(billions(describeModel(config))).toBe(expected);
  });
});
