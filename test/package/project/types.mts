import { attention, attentionAsync, KVCache, Tensor } from 'node-sdpa';

const q: Tensor = Tensor.zeros([1, 1, 1, 8]);
const out: Tensor = attention(q, q, q);
const { lse }: { lse: Tensor } = attention(q, q, q, { returnLse: true });
const later: Promise<Tensor> = attentionAsync(q, q, q);
const cache = new KVCache({ numKvHeads: 1, headDim: 8 });
const step: Tensor = cache.step(q, q, q);
// @ts-expect-error: causal is a boolean
export const refused = () => attention(q, q, q, { causal: 'yes' });
export { later, lse, step };

console.log(out.shape.join());
