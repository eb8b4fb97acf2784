// What `plan` predicts against what is measured: one layer of three models, prefill and decode at contexts that the
// prediction has not seen. The aim: within 30%.
import { coldBytes } from '../dist/cli/ceilings.js';
import { measure } from '../dist/cli/measure.js';
import { scoreOptions } from '../dist/cli/model-scores.js';
import { measureLayer, predictSeconds } from '../dist/cli/plan-times.js';
import { prepare } from '../dist/cli/prepare.js';
import { formatNumber } from '../dist/cli/table.js';
import { formatHeads, groupLayers } from '../dist/cli/workloads.js';
import { describeModel } from '../dist/index.js';
import { presetConfig } from '../dist/modules/presets.js';
import { print } from './machine.mjs';

const MODELS = ['minimind2', 'llama3-8b', 'gpt-oss-20b'];
const CONTEXTS = { prefill: [128, 512, 2048], decode: [512, 4096, 16384] };
const LIMIT = 1.3;
const BUDGET = { seconds: 0.5, minSamples: 5 };

export default async function run() {
  const rows = [];
  for (const name of MODELS) {
    const model = describeModel(presetConfig(name));
    for (const group of groupLayers(model).groups)
      for (const dtype of ['float32', 'bfloat16', 'int8'])
        rows.push(...(await runOne(name, model, group, dtype)));
  }
  const head = [
    'model',
    'layer',
    'heads',
    'dtype',
    'phase',
    'context',
    'predicted ms',
    'measured ms',
    'ratio',
    '',
  ];
  print('plan: predicted against measured', head, rows, 5);
}

async function runOne(name, model, group, dtype) {
  const at = (phase, context) => {
    const shape = phase === 'decode' ? group.decodeShape : group.shape;
    return { phase, shape, context, causal: model.causal, window: group.window, dtype, precision: 'highest' };
  };
  const rates = await measureLayer(model, group, dtype, 8192, at);
  const rows = [];
  for (const phase of ['prefill', 'decode']) {
    for (const context of CONTEXTS[phase]) {
      const workload = at(phase, context);
      const options = scoreOptions(model, group.shape.numHeads);
      const prepared = prepare(workload, { ...options, coldBytes: phase === 'decode' ? coldBytes() : 0 });
      prepared.check();
      const { seconds } = await measure(prepared, 1, null, BUDGET);
      prepared.dispose();
      const predicted = predictSeconds(rates, workload);
      const ratio = predicted / seconds;
      rows.push([
        name,
        group.name,
        formatHeads(workload.shape),
        dtype,
        phase,
        String(context),
        formatNumber(1000 * predicted),
        formatNumber(1000 * seconds),
        ratio.toFixed(2),
        ratio < LIMIT && ratio > 1 / LIMIT ? 'ok' : 'OFF',
      ]);
    }
  }
  return rows;
}
