/** A list whose methods do nothing that they should, and one whose length is a lie. */
class Odd extends Array {
  static override get [Symbol.species](): ArrayConstructor {
    return Object as never;
  }
}
export const odd = (values: number[]): unknown =>
  Object.assign(Odd.from(values), { slice: null, every: () => true });
export const lyingList = (length: unknown): unknown =>
  new Proxy([1, 2], {
    get: (target, name) => (name === 'length' ? length : (Reflect.get(target, name) ?? 1)),
  });
