// Whatever is timed: { name, route, spins, copiedCaches, isElsewhere, run, rewind, readOut, dispose }. run computes the workload
// once and may be a promise; rewind undoes it, untimed; readOut gives the result as Tensor [1, numHeads, qLen, headDim], or a
// promise of it; isElsewhere: in another process, by whose clock run answers the seconds.
import { encodeModel } from '../../dist/cli/onnx/model.js';
import { checkSamples } from '../../dist/cli/prepare.js';
import { Tensor } from '../../dist/index.js';
import { routesOf } from './routes.mjs';

/** ONNX Runtime as compare takes it. */
export const asRuntime = (onnxruntime) => ({
  maySleep: true,
  // Its binding for Node has no bfloat16.
  routesOf: (workload) => (workload.dtype === 'bfloat16' ? [] : routesOf(workload)),
  prepare: (...request) => prepareRoute(onnxruntime, ...request),
});

/** A route of ONNX Runtime. `spins`: whether its idle threads go on spinning, as they do by default. */
export async function prepareRoute(runtime, route, inputs, workload, spins = true) {
  const { shape, dtype, threads } = workload;
  const session = await runtime.InferenceSession.create(encodeModel(route.build(shape, dtype)), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    extra: { session: { intra_op: { allow_spinning: spins ? '1' : '0' } } },
  });
  const feeds = wrapAll(runtime, route.feed(inputs, workload));
  const given = route.given === undefined ? {} : wrapAll(runtime, route.given(inputs));
  const fetches = Object.fromEntries(route.fetches.map((name) => [name, given[name] ?? null]));
  let results = null;
  return {
    name: route.family,
    route: route.name,
    spins: threads === 1 ? null : spins,
    copiedCaches: route.copiedCaches,
    async run() {
      route.beforeRun?.(inputs);
      results = await session.run(feeds, fetches);
    },
    rewind() {
      results = null;
    },
    readOut: () => route.readOut(new Tensor(results.out.data, results.out.dims, { dtype }), workload),
    dispose: () => session.release(),
  };
}

function wrapAll(runtime, values) {
  const wrap = (value) =>
    Array.isArray(value)
      ? wrapIntegers(runtime, value)
      : new runtime.Tensor(value.dtype, value.data, value.shape);
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, wrap(value)]));
}

function wrapIntegers(runtime, [dtype, numbers, dims]) {
  const data = dtype === 'int64' ? BigInt64Array.from(numbers) : Int32Array.from(numbers);
  return new runtime.Tensor(dtype, data, dims);
}

/** Runs once and holds sampled queries and heads against referenceAttention: their largest error. @throws UsageError */
export async function check(system, { q, k, v }) {
  await system.run();
  const error = checkSamples({ q, k, v, out: await system.readOut() }, { causal: true });
  system.rewind();
  return error;
}
