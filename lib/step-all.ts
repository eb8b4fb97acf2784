import { type AttentionResult, makeResults } from './attention.ts';
import type { CacheLayout } from './backend.ts';
import { checkBackend } from './cache-checks.ts';
import { withinWindow } from './cache-layout.ts';
import type { CacheState } from './cache-state.ts';
import { readTokens } from './cache-tokens.ts';
import { describeCacheAttention } from './describe-attention.ts';
import { CapacityError, OptionError, ShapeError } from './errors.ts';
import { MAX_BATCH } from './limits.ts';
import { CACHE_OPTIONS, type CacheAttentionOptions, readCacheOptions } from './options.ts';
import type { Tensor } from './tensor.ts';
import { checkFinite } from './tensor-int8.ts';
import { copyList, formatValue } from './tensor-layout.ts';
import type { TensorLike } from './tensor-like.ts';

const CALLER = 'KVCache.stepAll';
const SAME: readonly (keyof CacheLayout)[] = [
  'numKvHeads',
  'headDim',
  'valueDim',
  'dtype',
  'window',
  'sinkTokens',
];

/**
 * One decode step of N independent caches: validates it, and has their backend do it. Nothing has changed in any of them
 * when it throws.
 *
 * @param caches what the caller gave
 * @param stateOf the state of a cache; null for anything else
 */
export function stepAll(
  caches: readonly unknown[],
  stateOf: (cache: unknown) => CacheState | null,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: CacheAttentionOptions | null | undefined,
): Tensor | AttentionResult {
  const members = readMembers(caches, stateOf);
  const before = members.map(({ length }) => length);
  const given = readCacheOptions(CALLER, options, CACHE_OPTIONS);
  const longest = before.reduce((most, length) => Math.max(most, length), 0);
  const { layout, backend } = members[0];
  // Capacity is each cache's own affair.
  const together: CacheLayout = { ...layout, batch: members.length, maxLength: Infinity };
  const tokens = readTokens(CALLER, { layout: together, length: longest, lengths: null }, k, v);
  if (layout.dtype === 'int8') checkFinite(tokens.k, tokens.v);
  checkCapacity(members, before, tokens.count);
  const { numKvHeads, headDim, valueDim } = layout;
  const keys = { batch: members.length, numKvHeads, kvLen: longest + tokens.count, headDim, valueDim };
  const kvLengths = Int32Array.from(before, (length) => length + tokens.count);
  const problem = describeCacheAttention(CALLER, q, keys, { ...withinWindow(given, layout), kvLengths });
  checkBackend(CALLER, problem, backend);
  const results = makeResults(problem);
  members.forEach((member, n) => {
    member.checkUnchanged(CALLER, before[n]);
  });
  const counts = members.map(() => tokens.count);
  const call = { problem, out: results.out, lse: results.lse };
  backend.stepAll(
    members.map((member) => member.changing()),
    counts,
    tokens.k,
    tokens.v,
    call,
  );
  members.forEach((member, n) => {
    member.grow({ ...tokens, length: kvLengths[n] });
  });
  return results.value;
}

/** The caches of a call: at least one, distinct, usable, of batch 1 and of one layout and backend. */
function readMembers(
  caches: readonly unknown[],
  stateOf: (cache: unknown) => CacheState | null,
): readonly CacheState[] {
  const list = Array.isArray(caches) ? copyList(caches, MAX_BATCH) : null;
  if (list === null || list.length === 0) {
    throw new OptionError(
      `${CALLER}: caches must be a list of at least one KVCache; got ${formatValue(caches)}`,
    );
  }
  const members = list.map((cache, n) => {
    const member = stateOf(cache);
    if (member !== null) return member;
    throw new OptionError(`${CALLER}: caches[${n}] must be a KVCache; got ${formatValue(cache)}`);
  });
  const { layout, backend } = members[0];
  const seen = new Map<unknown, number>();
  members.forEach((member, n) => {
    member.checkUsable(CALLER);
    const first = seen.get(list[n]);
    if (first !== undefined) {
      throw new OptionError(
        `${CALLER}: caches[${n}] is caches[${first}]; a cache takes one step at a time: fork it, or leave one out`,
      );
    }
    seen.set(list[n], n);
    if (member.layout.batch !== 1) {
      throw new ShapeError(
        `${CALLER}: each cache must have batch 1; caches[${n}] has batch ${member.layout.batch}; step it by itself`,
      );
    }
    for (const name of SAME) {
      if (member.layout[name] === layout[name]) continue;
      throw new OptionError(
        `${CALLER}: caches must have one layout; ${name} is ${layout[name]} in caches[0] and ${member.layout[name]} ` +
          `in caches[${n}]; step them in groups that agree`,
      );
    }
    if (member.backend !== backend) {
      throw new OptionError(
        `${CALLER}: caches[0] belongs to the ${backend.name} backend, caches[${n}] to the ${member.backend.name} backend; ` +
          'step them in groups that agree',
      );
    }
  });
  return members;
}

function checkCapacity(members: readonly CacheState[], before: readonly number[], count: number): void {
  members.forEach(({ layout }, n) => {
    if (before[n] + count <= layout.maxLength) return;
    throw new CapacityError(
      `${CALLER}: ${count} more tokens beside the ${before[n]} in caches[${n}] exceed its maxLength ${layout.maxLength}; ` +
        'truncate it or leave it out; nothing was appended to any cache',
    );
  });
}
