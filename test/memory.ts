/** Elements of the longest Float64Array that `fn` makes. */
export function longestFloat64Array(fn: () => unknown): number {
  const Plain = globalThis.Float64Array;
  let longest = 0;
  globalThis.Float64Array = new Proxy(Plain, {
    construct(target, args, newTarget) {
      const made = Reflect.construct(target, args, newTarget) as Float64Array;
      longest = Math.max(longest, made.length);
      return made;
    },
  });
  try {
    fn();
  } finally {
    globalThis.Float64Array = Plain;
  }
  return longest;
}
