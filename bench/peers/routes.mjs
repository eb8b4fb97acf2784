// The ways of computing attention with ONNX Runtime from Node. Those of one family do the same job for the caller; the
// fastest on this machine speaks for its family. A route:
//   family, name   what the caller gets, and how
//   build          (shape, dtype) -> graph
//   feed           (inputs, workload) -> Tensors, or [dtype, numbers, dims], by name
//   fetches        names of outputs; with given, by name, the tensors that they are to be written into
//   beforeRun      what the caller does by hand in each run, timed with it
//   readOut        (out, workload) -> Tensor [1, numHeads, qLen, headDim]
//   copiedCaches   of decode: how often a run copies the whole cache, { operator, binding }
import { decodeRoutes } from './routes-decode.mjs';
import { prefillRoutes } from './routes-prefill.mjs';

/** Routes of a workload. */
export function routesOf({ phase }) {
  return phase === 'prefill' ? prefillRoutes : decodeRoutes;
}
