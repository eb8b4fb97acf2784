import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type CacheHeader,
  describeState,
  encodeHeader,
  headerBytesOf,
  PREFIX_BYTES,
  parseHeader,
  type SavedState,
} from '../../lib/cache-header.ts';
import { crc32 } from '../../lib/crc32.ts';
import { OptionError } from '../../lib/errors.ts';

const STATE: SavedState = {
  layout: {
    batch: 2,
    numKvHeads: 3,
    headDim: 5,
    valueDim: 7,
    dtype: 'bfloat16',
    maxLength: 5000,
    window: 100,
    sinkTokens: 4,
  },
  entries: [{ length: 1000, keptBegin: 832, newest: 9 }],
};

const FIELDS = [
  'byteOrder',
  'dtype',
  'batch',
  'numKvHeads',
  'headDim',
  'valueDim',
  'maxLength',
  'window',
  'sinkTokens',
  'numEntries',
  'length',
  'keptBegin',
  'newest',
  'numSections',
];

const fieldAt = (name: string): number => PREFIX_BYTES + 8 * FIELDS.indexOf(name);

/** The header of STATE with other fields (by name, or a section's number by index), its checksum right. */
function forged(fields: Readonly<Record<string, bigint>>): Uint8Array {
  const bytes = encodeHeader(describeState(STATE));
  const view = new DataView(bytes.buffer);
  for (const [name, value] of Object.entries(fields))
    view.setBigUint64(
      FIELDS.includes(name) ? fieldAt(name) : fieldAt('numSections') + 8 + 8 * Number(name),
      value,
      true,
    );
  view.setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)), true);
  return bytes;
}

const parse = (bytes: Uint8Array): CacheHeader => parseHeader('test', bytes);

function expectRefused(bytes: Uint8Array, message: RegExp): void {
  expect(() => parse(bytes)).toThrow(OptionError);
  expect(() => parse(bytes)).toThrow(message);
}

test('what is written is read, and nothing else matters', () => {
  const header = parse(encodeHeader(describeState(STATE)));
  expect(header).toEqual(describeState(STATE));
  const rows = 2 * 3 * (4 + 1000 - 832);
  expect(header.blocks).toEqual([
    { kind: 'keys', entry: 0, rows, rowBytes: 10 },
    { kind: 'values', entry: 0, rows, rowBytes: 14 },
  ]);
  expect(header.fileBytes).toBe(header.headerBytes + rows * 24 + 4);
  const behind = Uint8Array.from([...encodeHeader(describeState(STATE)), 1, 2, 3]);
  expect(parse(behind)).toEqual(header);
  const unbounded = { ...STATE, layout: { ...STATE.layout, maxLength: Infinity } };
  expect(parse(encodeHeader(describeState(unbounded))).layout.maxLength).toBe(Infinity);
});

test('entries of different lengths', () => {
  const entries = [
    { length: 1000, keptBegin: 832, newest: 9 },
    { length: 20, keptBegin: 0, newest: 0 },
  ];
  const header = parse(encodeHeader(describeState({ layout: STATE.layout, entries })));
  expect(header.entries).toEqual(entries);
  expect(header.blocks).toMatchObject([
    { kind: 'keys', entry: 0, rows: 3 * 172 },
    { kind: 'keys', entry: 1, rows: 3 * 20 },
    { kind: 'values', entry: 0, rows: 3 * 172 },
    { kind: 'values', entry: 1, rows: 3 * 20 },
  ]);
});

test('the bytes of a header stay what they are', () => {
  const bytes = encodeHeader(describeState(STATE));
  expect(Buffer.from(bytes.subarray(0, 40)).toString('hex')).toBe(
    '89534450414b560a' +
      '01000000' +
      'a4000000' +
      '0100000000000000' +
      '0300000000000000' +
      '0200000000000000',
  );
  expect(bytes.length).toBe(164);
});

describe('refuses', () => {
  test.each([0, 3, 8, 15, 16, 100, 163])('the first %i bytes', (length) => {
    expectRefused(
      encodeHeader(describeState(STATE)).subarray(0, length),
      /truncated: \d+ of \d+ bytes are there/,
    );
  });

  test('another kind of file, by what it begins with', () => {
    expectRefused(
      new TextEncoder().encode('PK\x03\x04 and so on, and on'),
      /no saved KVCache: it begins with \[50 4b 03 04 /,
    );
    expectRefused(Uint8Array.of(7), /no saved KVCache: it begins with \[07\]/);
  });

  test('a newer format, whatever follows, and says what to do', () => {
    const bytes = encodeHeader(describeState(STATE));
    new DataView(bytes.buffer).setUint32(8, 2, true);
    expectRefused(bytes, /has format 2, and this node-sdpa reads format 1; update node-sdpa/);
    expectRefused(bytes.subarray(0, 16), /format 2/);
  });

  test.each([0n, 12n, 2n ** 32n - 1n])('a header of %i bytes', (length) => {
    const bytes = encodeHeader(describeState(STATE));
    new DataView(bytes.buffer).setUint32(12, Number(length), true);
    expectRefused(bytes, /altered/);
  });

  test.each<[string, Record<string, bigint>, RegExp]>([
    ['the byte order of another machine', { byteOrder: 2n }, /byte order of another kind of machine/],
    ['an unknown dtype', { dtype: 9n }, /altered: it has the dtype code 9/],
    ['a number beyond 2^53', { length: 2n ** 53n }, /altered: it has a number of 9007199254740992/],
    ['the largest number', { batch: 2n ** 64n - 1n }, /altered: it has a number of/],
    ['no heads', { numKvHeads: 0n }, /numKvHeads must be a whole number, at least 1/],
    ['sinks without a window', { window: 0n, keptBegin: 0n }, /sinkTokens 4 without a window/],
    ['a gap without a window', { window: 0n, sinkTokens: 0n }, /no window and yet no tokens before 832/],
    ['more tokens than maxLength', { length: 5001n, keptBegin: 4990n }, /5001 tokens/],
    ['a gap beyond the end', { keptBegin: 1001n }, /1000 tokens from 1001 on/],
    ['a gap within the sinks', { keptBegin: 4n }, /1000 tokens from 4 on/],
    ['more new tokens than are kept', { newest: 169n }, /169 of them new/],
    ['heads that overflow', { batch: 2n ** 30n, numKvHeads: 2n ** 30n }, /batch may be at most 1048576/],
    ['rows that overflow', { headDim: 2n ** 50n, '1': 2n ** 51n }, /more bytes than can be counted/],
    ['no entries', { numEntries: 0n }, /0 entries of a batch of 2/],
    ['entries that are not there', { batch: 3n, numEntries: 3n }, /3 entries of a batch of 3/],
    ['more entries than the batch', { numEntries: 3n }, /3 entries of a batch of 2/],
    ['no sections', { numSections: 0n }, /sections/],
    ['other sections', { '0': 2n }, /sections \[2, 2, 10, 2, 14\] where its layout has \[2, 1, 10, 2, 14\]/],
    ['rows of another size', { '3': 16n }, /sections/],
  ])('%s', (_, fields, message) => {
    expectRefused(forged(fields), message);
  });
});

const whole = fc.oneof(
  fc.bigInt({ min: 0n, max: 20n }),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(2n ** 31n, 2n ** 32n, 2n ** 52n, 2n ** 53n - 1n),
);

test('any header with a right checksum is one that can be counted, or refused', () => {
  let accepted = 0;
  const fields = fc.dictionary(fc.constantFrom(...FIELDS.slice(1), '0', '1', '2', '3'), whole, {
    maxKeys: 4,
  });
  fc.assert(
    fc.property(fields, (given) => {
      let header: CacheHeader;
      try {
        header = parse(forged(given));
      } catch (error) {
        expect(error).toBeInstanceOf(OptionError);
        return;
      }
      accepted++;
      const { blocks, headerBytes, fileBytes } = header;
      const bytes = blocks.reduce((sum, { rows, rowBytes }) => sum + BigInt(rows) * BigInt(rowBytes), 0n);
      expect(BigInt(fileBytes)).toBe(BigInt(headerBytes) + bytes + 4n);
      expect(Number.isSafeInteger(fileBytes)).toBe(true);
    }),
    { numRuns: 3000, seed: 20260103 },
  );
  expect(accepted).toBeGreaterThan(20);
});

test('any bytes are refused with an OptionError, and so is any part of a header', () => {
  const magic = encodeHeader(describeState(STATE)).subarray(0, 12);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(12), (bytes, length) => {
      const given = Uint8Array.from([...magic.subarray(0, length), ...bytes]);
      expect(() => parse(given)).toThrow(OptionError);
    }),
    { numRuns: 2000, seed: 20260104 },
  );
  expect(headerBytesOf('test', encodeHeader(describeState(STATE)).subarray(0, 16))).toBe(164);
});

test('any single byte that is another is noticed', () => {
  const bytes = encodeHeader(describeState(STATE));
  for (let at = 0; at < bytes.length; at++) {
    for (const flip of [1, 128, 255]) {
      const other = bytes.slice();
      other[at] ^= flip;
      expect(() => parse(other), `byte ${at}`).toThrow(OptionError);
    }
  }
});
