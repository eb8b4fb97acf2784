import type { Backend, CacheLayout, CacheStorage } from './backend.ts';
import { checkTruncation, readLengths } from './cache-checks.ts';
import type { Before, Tokens } from './cache-tokens.ts';
import { DisposedError, OptionError } from './errors.ts';
import { RaggedStorage } from './ragged-cache.ts';

/** What a KVCache is, apart from the reading of arguments: its memory, how long it is, and whether it may be used. */
export class CacheState implements Before {
  readonly layout: CacheLayout;
  readonly backend: Backend;
  storage: CacheStorage;
  /** What `storage` was made from, while the tokens for which that was may yet be taken back. */
  private former: CacheStorage | null = null;
  #length: number;
  #newest: number;
  /** That the storage changes, or that JavaScript was stopped while it did: by vm's `timeout`, by Ctrl-C in the REPL. */
  #isChanging = false;
  busy = false;
  disposed = false;

  constructor(layout: CacheLayout, backend: Backend, storage: CacheStorage, newest: number) {
    this.layout = layout;
    this.backend = backend;
    this.storage = storage;
    this.#length = storage.length;
    this.#newest = newest;
  }

  /** Tokens of the longest batch entry. */
  get length(): number {
    if (this.#isChanging) this.#noteChange();
    return this.#length;
  }

  /** Tokens of the newest append that are still there. */
  get newest(): number {
    if (this.#isChanging) this.#noteChange();
    return this.#newest;
  }

  /** Of each batch entry, where they may differ. */
  get lengths(): Int32Array | null {
    return this.storage instanceof RaggedStorage ? this.storage.lengths : null;
  }

  fork(): CacheState {
    return new CacheState(this.layout, this.backend, this.storage.fork(), this.newest);
  }

  /** @throws DisposedError; OptionError while an asynchronous call runs */
  checkUsable(caller: string): void {
    if (this.disposed) throw new DisposedError(`${caller}: the cache was disposed; make a new KVCache`);
    if (this.busy) {
      throw new OptionError(`${caller}: an asynchronous call is running on this cache; await it first`);
    }
  }

  /** That the cache still is `length` tokens long: while arguments are read their getters run, and may use it. */
  checkUnchanged(caller: string, length: number): void {
    this.checkUsable(caller);
    if (this.length === length) return;
    throw new OptionError(
      `${caller}: a getter of an argument changed the cache from ${length} to ${this.length} tokens while it was read; ` +
        'read it before the call',
    );
  }

  /** The storage, about to change. Whatever becomes of that: the next to ask for the length is told what the storage holds. */
  changing(): CacheStorage {
    this.#isChanging = true;
    return this.storage;
  }

  /** Where the tokens go: from the first time on that entries differ in length, to a storage where they may. */
  storageFor({ lengths }: Tokens): CacheStorage {
    if (lengths !== null) this.toRagged();
    return this.changing();
  }

  /** Takes note of tokens that the storage has taken. */
  grow({ length, count, counts }: Pick<Tokens, 'length' | 'count' | 'counts'>): void {
    this.dropFormer();
    this.become(
      length,
      counts === null ? count : counts.reduce((least, own) => Math.min(least, own), Infinity),
    );
  }

  become(length: number, newest: number): void {
    this.#length = length;
    this.#newest = newest;
    this.#isChanging = false;
  }

  /** Appends tokens that are still to be confirmed; what undoes it. */
  appendRevocably(tokens: Tokens): () => void {
    const { storage, length } = this;
    const [lengths, newest] = storage instanceof RaggedStorage ? [storage.lengths, storage.newestOfEach] : [];
    this.storageFor(tokens).appendRevocably(tokens.k, tokens.v, tokens.counts);
    this.#isChanging = false; // until they are confirmed they do not count
    return () => {
      if (this.former !== null) {
        this.storage.dispose();
        this.storage = this.former;
        this.former = null;
      } else if (storage instanceof RaggedStorage) storage.takeBack(lengths!, newest!);
      else storage.truncate(length);
    };
  }

  confirmAppend(tokens: Tokens): void {
    this.changing().confirmAppend();
    this.grow(tokens);
  }

  /** @param value one length, or one a batch entry */
  truncate(caller: string, value: unknown): void {
    const before = this.length;
    this.dropFormer();
    const isList = typeof value === 'object' && value !== null;
    const lengths = isList ? readLengths(caller, value, this.layout.batch, this.lengths ?? before) : null;
    if (isList) this.checkUnchanged(caller, before);
    if (lengths !== null && lengths.length > 1) {
      const ragged = this.toRagged();
      this.changing();
      ragged.truncateEach(lengths);
      this.dropFormer();
    } else {
      const length = lengths === null ? value : lengths[0];
      checkTruncation(length, before, this.storage.keptBegin, this.layout);
      this.changing().truncate(length as number);
    }
    this.#noteChange();
  }

  keep(indices: readonly number[]): void {
    this.dropFormer();
    const begin = this.length - this.newest;
    this.changing().keep(begin, indices);
    this.#noteChange();
  }

  /** Frees the memory, or leaves that to the call that runs. */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.become(0, 0);
    if (!this.busy) this.free();
  }

  free(): void {
    this.dropFormer();
    this.storage.dispose();
  }

  #noteChange(): void {
    const { storage } = this;
    const grown = storage.length - this.#length;
    const newest = grown > 0 ? grown : Math.max(0, this.#newest + grown);
    this.become(storage.length, storage instanceof RaggedStorage ? storage.newest : newest);
  }

  private dropFormer(): void {
    this.former?.dispose();
    this.former = null;
  }

  private toRagged(): RaggedStorage {
    const { storage } = this;
    if (storage instanceof RaggedStorage) return storage;
    const ragged = RaggedStorage.from(this.backend, this.layout, storage, this.newest);
    this.storage = ragged;
    this.former = storage;
    return ragged;
  }
}
