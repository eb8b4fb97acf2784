import type { CacheLayout, CacheStorage } from '../backend.ts';
import { CapacityError } from '../errors.ts';
import type { AttentionProblem } from '../problem.ts';
import { Tensor } from '../tensor.ts';
import type { Addon, NativeCache, RepeatStep } from './addon.ts';
import { checkStatus, guard, operandsOf, steadyOperandsOf, withCancelFlag } from './call.ts';
import { dtypeCode, encodeProblem } from './encode.ts';

/** A cache whose memory belongs to the addon. */
export class NativeCacheStorage implements CacheStorage {
  readonly #layout: CacheLayout;
  readonly #cache: NativeCache;
  readonly #repeat: RepeatStep;

  constructor(addon: Addon, layout: CacheLayout) {
    const { batch, numKvHeads, headDim, valueDim, dtype, maxLength } = layout;
    const bound = maxLength === Infinity ? 0 : maxLength;
    this.#layout = layout;
    try {
      this.#cache = new addon.KvCache(
        new Float64Array([batch, numKvHeads, headDim, valueDim, dtypeCode(dtype), bound]),
      );
    } catch (error) {
      const tokens = bound === 0 ? 'a few' : maxLength;
      throw new CapacityError(
        `KVCache: no address space for [${batch}, ${numKvHeads}, ${tokens} tokens, ${headDim}] keys and as many values; ` +
          `lower ${bound === 0 ? 'the sizes' : 'maxLength'}`,
        { cause: error },
      );
    }
    this.#repeat = this.#cache.repeater();
  }

  get length(): number {
    return this.#cache.length();
  }

  get capacity(): number {
    return this.#cache.capacity();
  }

  get byteLength(): number {
    return this.#cache.byteLength();
  }

  append(k: Tensor, v: Tensor): void {
    if (!guard(() => this.#cache.append(appendLayout(k, v), k.data, v.data))) throw this.#full(k.shape[2]);
  }

  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const call = { problem, out, lse };
    checkStatus(guard(() => this.#cache.attend(encodeProblem(call), ...operandsOf(call))));
  }

  step(k: Tensor, v: Tensor, problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const call = { problem, out, lse };
    const status = guard(() =>
      this.#cache.step(appendLayout(k, v), k.data, v.data, encodeProblem(call), ...operandsOf(call)),
    );
    if (status === 2) throw this.#full(k.shape[2]);
  }

  repeatStep(q: Tensor, k: Tensor, v: Tensor, out: Tensor): boolean {
    const repeat = this.#repeat;
    return repeat(q.data, k.data, v.data, out.data, q.offset, k.offset, v.offset, out.offset);
  }

  async attendAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    const call = { problem, out, lse };
    await withCancelFlag(signal, (cancelFlag) =>
      guard(() => this.#cache.attendAsync(encodeProblem(call), ...steadyOperandsOf(call), cancelFlag)),
    );
  }

  truncate(length: number): void {
    this.#cache.truncate(length);
  }

  keys(): Tensor {
    return this.#copy(0, this.#layout.headDim);
  }

  values(): Tensor {
    return this.#copy(1, this.#layout.valueDim);
  }

  dispose(): void {
    this.#cache.dispose();
  }

  #copy(which: 0 | 1, dim: number): Tensor {
    const { batch, numKvHeads, dtype } = this.#layout;
    const copy = Tensor.empty([batch, numKvHeads, this.length, dim], { dtype });
    this.#cache.copyRows(which, copy.data);
    return copy;
  }

  #full(tokens: number): CapacityError {
    return new CapacityError(
      `KVCache: no memory for ${tokens} more tokens beside the ${this.length} that are cached; the cache is unchanged`,
    );
  }
}

const layoutOfAppend = new Float64Array(9);

/** tokens, then offset and batch, head, row strides of k and of v, as the addon's append reads them. Good until the next. */
function appendLayout(k: Tensor, v: Tensor): Float64Array {
  const layout = layoutOfAppend;
  layout[0] = k.shape[2];
  layout[1] = k.offset;
  layout[5] = v.offset;
  for (let axis = 0; axis < 3; axis++) {
    layout[2 + axis] = k.strides[axis];
    layout[6 + axis] = v.strides[axis];
  }
  return layout;
}
