import { alibiSlopes } from '../modules/alibi.ts';
import type { ModelDescription } from '../modules/describe-model.ts';
import { Tensor } from '../tensor.ts';
import type { ScoreOptions } from './prepare.ts';

/** The model's own scale, softcap, sinks and slopes, as attention takes them. */
export function scoreOptions(model: ModelDescription, numHeads: number): ScoreOptions {
  return {
    scale: model.scale,
    ...(model.softcap === 0 ? {} : { softcap: model.softcap }),
    ...(model.sinks ? { sinks: Tensor.randn([numHeads], { seed: 4 }) } : {}),
    ...(model.alibi ? { alibiSlopes: alibiSlopes(numHeads) } : {}),
  };
}
