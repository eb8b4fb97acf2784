import { OptionError, ShapeError } from '../errors.ts';
import { formatValue, maxRank } from '../tensor-layout.ts';

/** The error for a file that is not as the format has it. */
export function malformed(caller: string, what: string): OptionError {
  return new OptionError(`${caller}: this is no .safetensors file: ${what}`);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const halfCharacter = /\p{Surrogate}/u;

/** Whether UTF-8 can hold a text: it has no half of a surrogate pair. */
export const isWellFormed = (text: string): boolean => !halfCharacter.test(text);

/**
 * Reads JSON from left to right, as far as a header needs it: objects, strings, lists of whole numbers. JSON.parse would hide a
 * name that stands twice, round large numbers, and nest as deep as the file likes.
 */
export class JsonReader {
  readonly #caller: string;
  readonly #text: string;
  #at = 0;

  constructor(caller: string, text: string) {
    this.#caller = caller;
    this.#text = text;
  }

  /** An object, whose values `readValue` reads, given their keys. No key may stand twice. */
  readObject(readValue: (key: string) => void): void {
    const keys = new Set<string>();
    this.#expect('{');
    if (this.#accept('}')) return;
    do {
      const key = this.readString();
      if (keys.has(key)) throw malformed(this.#caller, `its header has ${formatValue(key)} twice`);
      keys.add(key);
      this.#expect(':');
      readValue(key);
    } while (this.#accept(','));
    this.#expect('}');
  }

  /** A list of at most 64 whole numbers, at least 0 and below 2^53. */
  readNumbers(what: string): readonly number[] {
    const numbers: number[] = [];
    this.#expect('[');
    if (this.#accept(']')) return Object.freeze(numbers);
    do {
      if (numbers.length === maxRank)
        throw new ShapeError(`${this.#caller}: ${what} has more than ${maxRank} entries`);
      numbers.push(this.#readNumber(what));
    } while (this.#accept(','));
    this.#expect(']');
    return Object.freeze(numbers);
  }

  readString(): string {
    this.#expect('"');
    const begin = this.#at - 1;
    while (this.#text.charCodeAt(this.#at) !== QUOTE) {
      if (this.#at >= this.#text.length) throw malformed(this.#caller, 'its header ends within a string');
      this.#at += this.#text.charCodeAt(this.#at) === BACKSLASH ? 2 : 1;
    }
    this.#at++;
    const value = this.#decode(this.#text.slice(begin, this.#at));
    if (isWellFormed(value)) return value;
    throw malformed(
      this.#caller,
      `its header has the string ${JSON.stringify(value.slice(0, 40))}, half a character`,
    );
  }

  /** Nothing but space may follow. */
  readEnd(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#unexpected('the end of the header');
  }

  #decode(quoted: string): string {
    try {
      return JSON.parse(quoted) as string;
    } catch (cause) {
      const message = `its header has the string ${quoted.slice(0, 40)}, which is no JSON`;
      throw new OptionError(malformed(this.#caller, message).message, { cause });
    }
  }

  #readNumber(what: string): number {
    this.#skipSpace();
    const pattern = /-?[0-9][0-9.eE+-]{0,40}/y;
    pattern.lastIndex = this.#at;
    const written = pattern.exec(this.#text)?.[0];
    if (written === undefined) throw this.#unexpected('a whole number');
    this.#at += written.length;
    const number = Number(written);
    if (/^(0|[1-9][0-9]*)$/.test(written) && Number.isSafeInteger(number)) return number;
    throw new ShapeError(
      `${this.#caller}: ${what} must hold whole numbers from 0 up to 2^53 - 1; got ${written}`,
    );
  }

  #skipSpace(): void {
    while (this.#at < this.#text.length && ' \t\n\r'.includes(this.#text[this.#at])) this.#at++;
  }

  #accept(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#unexpected(`'${character}'`);
  }

  #unexpected(wanted: string): OptionError {
    const rest = this.#text.slice(this.#at, this.#at + 20);
    return malformed(
      this.#caller,
      `its header has ${formatValue(rest)} at ${this.#at} where ${wanted} belongs`,
    );
  }
}
