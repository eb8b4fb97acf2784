import type { ReadableFile, WritableFile } from '../../../lib/byte-file.ts';

/** A file in memory; `most` bytes cross at a time. */
export class MemoryFile implements ReadableFile, WritableFile {
  bytes: Uint8Array;
  at = 0;
  bytesAsked = 0;
  readonly #most: number;

  constructor(bytes: Uint8Array = new Uint8Array(0), most = Infinity) {
    this.bytes = bytes;
    this.#most = most;
  }

  async read(buffer: Uint8Array, offset: number, length: number, position: number | null) {
    const from = position ?? this.at;
    const bytesRead = Math.max(0, Math.min(length, this.#most, this.bytes.length - from));
    buffer.set(this.bytes.subarray(from, from + bytesRead), offset);
    if (position === null) this.at += bytesRead;
    this.bytesAsked += bytesRead;
    return { bytesRead };
  }

  async write(buffer: Uint8Array, offset: number, length: number, _position: null) {
    const bytesWritten = Math.min(length, this.#most);
    const grown = new Uint8Array(this.at + bytesWritten);
    grown.set(this.bytes.subarray(0, this.at));
    grown.set(buffer.subarray(offset, offset + bytesWritten), this.at);
    this.bytes = grown;
    this.at = grown.length;
    return { bytesWritten };
  }

  async stat() {
    return { size: this.bytes.length };
  }
}
