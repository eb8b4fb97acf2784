import zlib from 'node:zlib';

/** One table for each byte of a word: TABLES[n][x] is the remainder of byte x with n bytes of zeros behind it. */
function makeTables(): readonly Int32Array[] {
  const first = Int32Array.from({ length: 256 }, (_, x) => {
    let remainder = x;
    for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb88320 : 0);
    return remainder;
  });
  const tables = [first];
  for (let n = 1; n < 4; n++)
    tables.push(tables[n - 1].map((remainder) => (remainder >>> 8) ^ first[remainder & 255]));
  return tables;
}

let tables: readonly Int32Array[] | undefined;

/** {@link crc32} where Node has none: four bytes at a time (Kounavis and Berry 2005, "slicing by 4"). */
export function crc32InTypeScript(bytes: Uint8Array, before = 0): number {
  tables ??= makeTables();
  const [t0, t1, t2, t3] = tables;
  let crc = ~before;
  let i = 0;
  for (; i + 4 <= bytes.length; i += 4) {
    crc ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    crc = t3[crc & 255] ^ t2[(crc >>> 8) & 255] ^ t1[(crc >>> 16) & 255] ^ t0[crc >>> 24];
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ t0[(crc ^ bytes[i]) & 255];
  return ~crc >>> 0;
}

/**
 * The CRC-32 of ISO-HDLC, as zlib, gzip and PNG have it, of bytes behind those of which `before` is the CRC-32. Not every
 * Node 22 has it.
 */
export const crc32: (bytes: Uint8Array, before?: number) => number = zlib.crc32 ?? crc32InTypeScript;
