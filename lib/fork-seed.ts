import type { Backend, CacheLayout, CacheStorage } from './backend.ts';

/** What a fork of a KVCache is made of. */
export class ForkSeed {
  readonly layout: CacheLayout;
  readonly backend: Backend;
  readonly storage: CacheStorage;
  readonly newest: number;

  constructor(layout: CacheLayout, backend: Backend, storage: CacheStorage, newest: number) {
    this.layout = layout;
    this.backend = backend;
    this.storage = storage;
    this.newest = newest;
  }
}
