import { parentPort, workerData } from 'node:worker_threads';
import { attention, attentionAsync, backendInfo, Tensor } from 'node-sdpa';

const q = Tensor.randn([1, 4, 33, 64], { seed: 1 });
const k = Tensor.randn([1, 2, 70, 64], { seed: 2 });
const v = Tensor.randn([1, 2, 70, 64], { seed: 3 });
if (workerData === 'endless') for (let i = 0; i < 50; i++) attentionAsync(q, k, v);
parentPort.postMessage({
  backend: backendInfo().backend,
  first: attention(q, k, v, { causal: true }).data[0],
});
