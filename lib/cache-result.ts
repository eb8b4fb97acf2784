import type { AttentionResult } from './attention.ts';
import type { CacheAttentionOptions, CacheStepOptions } from './options.ts';
import type { Tensor } from './tensor.ts';

/** Options of attention over a KVCache off the event loop: aborting `signal` rejects with its reason. */
export type CacheAttentionAsyncOptions = CacheAttentionOptions & { readonly signal?: AbortSignal | null };

/** The same, for stepAsync. */
export type CacheStepAsyncOptions = CacheStepOptions & { readonly signal?: AbortSignal | null };

/** What attention over a cache returns: { out, lse } where the options say `returnLse: true`, otherwise out. */
export type CacheResult<Options> = Options extends { readonly returnLse: true } ? AttentionResult : Tensor;
