// What `plan` predicts against what is measured: one layer of three models, prefill and decode at contexts that the
// prediction has not seen. The aim: within 30%. Both are the fastest of some rounds, since the machine may be used by others.
import { coldBytes } from '../dist/cli/ceilings.js';
import { measure } from '../dist/cli/measure.js';
import { scoreOptions } from '../dist/cli/model-scores.js';
import { LayerMeter, ROUNDS } from '../dist/cli/plan-meter.js';
import { predictSeconds } from '../dist/cli/plan-times.js';
import { prepare } from '../dist/cli/prepare.js';
import { formatNumber } from '../dist/cli/table.js';
import { formatHeads, groupLayers } from '../dist/cli/workloads.js';
import { describeModel } from '../dist/index.js';
import { presetConfig } from '../dist/modules/presets.js';
import { print } from './machine.mjs';

const MODELS = ['minimind2', 'llama3-8b', 'gpt-oss-20b'];
const CONTEXTS = { prefill: [300, 700, 3000], decode: [300, 3000, 24000] };
const LIMIT = 1.3;
const BUDGET = { seconds: 0.1, minSamples: 3 };

export default async function run() {
  const subjects = [];
  for (const name of MODELS) {
    const model = describeModel(presetConfig(name));
    for (const group of groupLayers(model).groups)
      for (const dtype of ['float32', 'bfloat16', 'int8'])
        subjects.push(new Subject(name, model, group, dtype));
  }
  for (let n = 0; n < ROUNDS; n++) for (const subject of subjects) await subject.round();
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
  const rows = subjects.flatMap((subject) => subject.rows());
  print('plan: predicted against measured', head, rows, 5);
  console.log(`${rows.filter((row) => row.at(-1) === 'ok').length} of ${rows.length} within 30%`);
}

/** A layer, what was measured of it for a prediction, and what the prediction is of. */
class Subject {
  constructor(name, model, group, dtype) {
    Object.assign(this, { name, model, group, dtype });
    const at = (phase, context) => {
      const shape = phase === 'decode' ? group.decodeShape : group.shape;
      return {
        phase,
        shape,
        context,
        causal: model.causal,
        window: group.window,
        dtype,
        precision: 'highest',
      };
    };
    this.meter = new LayerMeter(model, group, dtype, 32768, at);
    this.timed = ['prefill', 'decode'].flatMap((phase) =>
      CONTEXTS[phase].map((context) => ({ workload: at(phase, context), seconds: Infinity })),
    );
  }

  async round() {
    await this.meter.round();
    const options = scoreOptions(this.model, this.group.shape.numHeads);
    for (const timed of this.timed) {
      const cold = timed.workload.phase === 'decode' ? coldBytes() : 0;
      const prepared = prepare(timed.workload, { ...options, coldBytes: cold });
      await prepared.check();
      const { seconds } = await measure(prepared, 1, null, BUDGET);
      prepared.dispose();
      timed.seconds = Math.min(timed.seconds, seconds);
    }
  }

  rows() {
    return this.timed.map(({ workload, seconds }) => {
      const predicted = predictSeconds(this.meter.rates, workload);
      const ratio = predicted / seconds;
      return [
        this.name,
        this.group.name,
        formatHeads(workload.shape),
        this.dtype,
        workload.phase,
        String(workload.context),
        formatNumber(1000 * predicted),
        formatNumber(1000 * seconds),
        ratio.toFixed(2),
        ratio < LIMIT && ratio > 1 / LIMIT ? 'ok' : 'OFF',
      ];
    });
  }
}
