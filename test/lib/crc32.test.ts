import fc from 'fast-check';
import { expect, test } from 'vitest';
import { crc32, crc32InTypeScript } from '../../lib/crc32.ts';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

test.each([crc32, crc32InTypeScript])('%o gives the check value of CRC-32/ISO-HDLC', (checksum) => {
  expect(checksum(bytesOf('123456789'))).toBe(0xcbf43926);
  expect(checksum(bytesOf(''))).toBe(0);
  expect(checksum(bytesOf('6789'), checksum(bytesOf('12345')))).toBe(0xcbf43926);
});

test('both agree on any bytes, in one piece or in two', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), fc.nat(70), (bytes, cut) => {
      const whole = crc32(bytes);
      expect(crc32InTypeScript(bytes)).toBe(whole);
      expect(crc32InTypeScript(bytes.subarray(cut), crc32InTypeScript(bytes.subarray(0, cut)))).toBe(whole);
    }),
  );
});
