// The memory that a program hands to the library, with guards around it, and the proof that nobody wrote where he should not.

const GUARD_BYTES = 64;
const GUARD = 0xa5;

/** How an element of a dtype is stored. */
const ARRAYS = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  bool: Uint8Array,
};

/** Between the elements of a strided tensor: NaN as a float, so that whoever reads it shows it. */
const GAP = 0xff;

export class Ledger {
  #entries = [];

  /** A typed array of `length` elements between guards, in a buffer of that kind: plain, shared or resizable. */
  allocate(dtype, length, kind = 'plain') {
    const type = ARRAYS[dtype];
    const bytes = length * type.BYTES_PER_ELEMENT;
    const total = bytes + 2 * GUARD_BYTES;
    const buffer =
      kind === 'shared'
        ? new SharedArrayBuffer(total)
        : kind === 'resizable'
          ? new ArrayBuffer(total, { maxByteLength: 2 * total })
          : new ArrayBuffer(total);
    const all = new Uint8Array(buffer);
    all.fill(GUARD);
    all.fill(GAP, GUARD_BYTES, GUARD_BYTES + bytes);
    const data = new type(buffer, GUARD_BYTES, length);
    this.#entries.push({ buffer, total, want: null, writable: null });
    return data;
  }

  /** From here on the bytes at `data` must stay, but for the elements at `writable` while a call succeeds. */
  watch(data, writable = null) {
    const entry = this.#entries.find(({ buffer }) => buffer === data.buffer);
    entry.want = bytesOf(entry.buffer).slice();
    entry.writable = writable === null ? null : { data, indices: writable };
  }

  /** The memory was changed on purpose. */
  forget(buffer) {
    this.#entries = this.#entries.filter((entry) => entry.buffer !== buffer);
  }

  /**
   * What has changed that must not have, in words; null where nothing has.
   *
   * @param mayWrite whether outputs may hold something else now
   */
  breach(mayWrite) {
    for (const entry of this.#entries) {
      const { buffer, total, want, writable } = entry;
      if (want === null || buffer.byteLength !== total) continue;
      const now = bytesOf(buffer);
      if (mayWrite && writable !== null) {
        const { data, indices } = writable;
        const width = data.BYTES_PER_ELEMENT;
        for (const index of indices) {
          const at = data.byteOffset + index * width;
          want.set(now.subarray(at, at + width), at);
        }
      }
      if (Buffer.compare(now, want) === 0) continue;
      const at = now.findIndex((byte, n) => byte !== want[n]);
      const where =
        at < GUARD_BYTES || at >= total - GUARD_BYTES ? 'a guard' : writable === null ? 'an input' : 'out';
      return `${where} was written: byte ${at} of ${total}, ${want[at]} became ${now[at]}`;
    }
    return null;
  }
}

const bytesOf = (buffer) => new Uint8Array(buffer);

/**
 * Strides, offset and length of the data for a shape: 'plain'; 'padded' with gaps; 'swapped' in memory, heads behind
 * length; 'reversed' along its first axes; 'repeated', the first axes at one place.
 */
export function layoutOf(shape, style) {
  const rank = shape.length;
  const order = shape.map((_, axis) => axis);
  if (style === 'swapped' && rank >= 3)
    [order[rank - 3], order[rank - 2]] = [order[rank - 2], order[rank - 3]];
  const strides = new Array(rank).fill(0);
  let step = 1;
  for (const axis of order.reverse()) {
    strides[axis] = step;
    step *= Math.max(1, shape[axis]);
    if (style === 'padded') step += 3;
  }
  let offset = style === 'plain' ? 0 : 5;
  for (let axis = 0; axis + 1 < rank; axis++) {
    if (style === 'repeated' && axis < rank - 2) strides[axis] = 0;
    if (style === 'reversed' && axis < rank - 1) {
      offset += strides[axis] * Math.max(0, shape[axis] - 1);
      strides[axis] = -strides[axis];
    }
  }
  return { strides, offset, length: offset * 2 + step + 4 };
}

/** The places in data of all elements, in row-major order. */
export function placesOf(shape, strides, offset) {
  let places = [offset];
  shape.forEach((length, axis) => {
    places = places.flatMap((place) => Array.from({ length }, (_, i) => place + i * strides[axis]));
  });
  return places;
}
