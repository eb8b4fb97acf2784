import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ShapeError } from '../../lib/errors.ts';
import { Tensor } from '../../lib/tensor.ts';
import { sameMemory } from '../../lib/tensor-memory.ts';

/** The naive model of a view: its shape, and a function from an index to the value. */
interface Model {
  shape: number[];
  at: (index: number[]) => number;
}

const elements = ({ shape, at }: Model): number[] => {
  const list: number[] = [];
  const visit = (index: number[]): void => {
    if (index.length === shape.length) list.push(at(index));
    else for (let i = 0; i < shape[index.length]; i++) visit([...index, i]);
  };
  visit([]);
  return list;
};

/** One step of a chain; `pick` chooses among what is possible: axes, positions, shapes. */
type Step = (x: Tensor, model: Model, pick: (below: number) => number) => [Tensor, Model];

const steps: Step[] = [
  (x, { shape, at }, pick) => {
    if (shape.length === 0) return [x, { shape, at }];
    const [a, b] = [pick(shape.length), pick(shape.length)];
    const swap = <T>(list: T[]): T[] => list.map((item, i) => (i === a ? list[b] : i === b ? list[a] : item));
    return [x.transpose(a, b - shape.length), { shape: swap(shape), at: (index) => at(swap(index)) }];
  },
  (x, { shape, at }, pick) => {
    const axes = shape.map((_, i) => i);
    for (let i = axes.length - 1; i > 0; i--) {
      const j = pick(i + 1);
      [axes[i], axes[j]] = [axes[j], axes[i]];
    }
    const back = (index: number[]): number[] => axes.map((_, axis) => index[axes.indexOf(axis)]);
    const view = pick(2) === 0 ? x.permute(axes) : x.permute(...axes.map((axis) => axis - axes.length));
    return [view, { shape: axes.map((axis) => shape[axis]), at: (index) => at(back(index)) }];
  },
  (x, { shape, at }, pick) => {
    if (shape.length === 0) return [x, { shape, at }];
    const axis = pick(shape.length);
    const indices = Array.from({ length: shape[axis] }, (_, i) => i);
    const start = pick(2 * shape[axis] + 3) - shape[axis] - 1;
    const end = pick(4) === 0 ? undefined : pick(2 * shape[axis] + 3) - shape[axis] - 1;
    const kept = indices.slice(start, end); // the meaning of slice is that of Array
    return [
      x.slice(axis, start, end),
      { shape: shape.with(axis, kept.length), at: (index) => at(index.with(axis, kept[index[axis]])) },
    ];
  },
  (x, { shape, at }, pick) => {
    const axis = pick(shape.length + 1);
    const view = x.unsqueeze(pick(2) === 0 ? axis : axis - shape.length - 1);
    return [view, { shape: shape.toSpliced(axis, 0, 1), at: (index) => at(index.toSpliced(axis, 1)) }];
  },
  (x, { shape, at }, pick) => {
    const ones = shape.map((_, i) => i).filter((i) => shape[i] === 1);
    if (ones.length === 0) return [x.squeeze(), { shape, at }];
    const axis = ones[pick(ones.length)];
    return [
      x.squeeze(axis),
      { shape: shape.toSpliced(axis, 1), at: (index) => at(index.toSpliced(axis, 0, 0)) },
    ];
  },
  (x, model, pick) => {
    const list = elements(model);
    const shape = splitSize(list.length, pick);
    const at = (index: number[]): number => list[index.reduce((n, i, axis) => n * shape[axis] + i, 0)];
    const wanted = list.length > 0 && pick(2) === 0 ? shape.with(pick(shape.length), -1) : shape;
    const source = canReshape(x, shape) ? x : x.contiguous();
    const view = source.reshape(wanted);
    expect(sameMemory(view, source)).toBe(list.length > 0); // never a copy
    return [view, { shape, at }];
  },
];

/** A shape of `size` elements. */
function splitSize(size: number, pick: (below: number) => number): number[] {
  const shape: number[] = [];
  let rest = size;
  while (rest > 1 && shape.length < 4) {
    const divisors = Array.from({ length: rest }, (_, i) => i + 1).filter((d) => rest % d === 0);
    const divisor = divisors[pick(divisors.length)];
    shape.push(divisor);
    rest /= divisor;
  }
  return [...shape, rest];
}

/** By trying every stride: whether the view's positions in memory are linear in each index of `shape`. */
function canReshape(x: Tensor, shape: number[]): boolean {
  if (x.size === 0) return true;
  const positions = elements({
    shape: [...x.shape],
    at: (index) => index.reduce((sum, i, axis) => sum + i * x.strides[axis], 0),
  });
  let flat = 1;
  const strides = shape.map(() => 0);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] > 1) strides[axis] = positions[flat] - positions[0];
    flat *= shape[axis];
  }
  const linear = elements({
    shape,
    at: (index) => index.reduce((sum, i, axis) => sum + i * strides[axis], 0),
  });
  return linear.every((position, i) => position === positions[i] - positions[0]);
}

describe('views', () => {
  it('agree with a naive model through every chain, and share memory', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
        fc.array(fc.nat({ max: steps.length - 1 }), { maxLength: 7 }),
        fc.infiniteStream(fc.nat({ max: 10_000 })),
        (shape, chain, stream) => {
          const pick = (below: number): number => (stream.next().value as number) % below;
          let x = Tensor.arange(shape);
          const strides = [...x.strides];
          let model: Model = { shape, at: (index) => index.reduce((n, i, axis) => n + i * strides[axis], 0) };
          for (const step of chain) {
            [x, model] = steps[step](x, model, pick);
            expect(x.shape).toEqual(model.shape);
            const expected = elements(model);
            expect(x.size).toBe(expected.length);
            expect([...x.toFloat32Array()]).toEqual(expected);
            expect((x.rank === 0 ? [x.toArray()] : (x.toArray() as number[])).flat(9)).toEqual(expected);
            expect([...x.contiguous().data]).toEqual(expected);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('reshape refuses exactly what would need a copy, and names the remedy', () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray([0, 1, 2], { minLength: 3 }),
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }),
        fc.infiniteStream(fc.nat({ max: 10_000 })),
        (axes, lengths, stream) => {
          const x = Tensor.arange(lengths).permute(axes);
          const shape = splitSize(x.size, (below) => (stream.next().value as number) % below);
          if (canReshape(x, shape)) expect(x.reshape(shape).shape).toEqual(shape);
          else expect(() => x.reshape(shape)).toThrow(/\.contiguous\(\)/);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('takes lists, or the numbers one by one', () => {
    const x = Tensor.arange([2, 3, 4]);
    expect(x.permute(2, 0, 1).shape).toEqual(x.permute([2, 0, 1]).shape);
    expect(x.reshape(6, -1).shape).toEqual([6, 4]);
    expect(Tensor.arange(1).reshape([]).shape).toEqual([]);
    expect(Tensor.arange(1).reshape().shape).toEqual([]);
    expect(x.slice(1, -2).shape).toEqual([2, 2, 4]);
    expect(x.unsqueeze(-1).shape).toEqual([2, 3, 4, 1]);
    expect(Tensor.zeros([1, 2, 1]).squeeze().shape).toEqual([2]);
  });

  it('transposes [B, L, H, D] into [B, H, L, D] with a contiguous last axis, without a copy', () => {
    const x = Tensor.arange([2, 5, 3, 4]);
    const view = x.transpose(1, 2);
    expect([view.shape, view.strides]).toEqual([
      [2, 3, 5, 4],
      [60, 4, 12, 1],
    ]);
    expect([view.data === x.data, view.isContiguous]).toEqual([true, false]);
  });

  it('refuses what does not fit', () => {
    const x = Tensor.arange([2, 3]);
    const uses: [() => unknown, RegExp][] = [
      [() => x.transpose(0, 2), /transpose: axis 2 is not an axis of a tensor of rank 2 \(from -2 to 1\)/],
      [() => x.transpose(0, undefined as never), /transpose: axis undefined/],
      [() => Tensor.zeros([]).transpose(0, 0), /it has none/],
      [() => x.permute(0), /must name each axis of shape \[2, 3\] once/],
      [() => x.permute(0, 0), /once/],
      [() => x.permute('01' as never), /permute: axes/],
      [() => x.reshape(4, 2), /shape \[4, 2\] holds 8 elements, shape \[2, 3\] holds 6/],
      [() => x.reshape(-1, -1), /one -1 is allowed/],
      [() => x.reshape(4, -1), /cannot infer -1/],
      [() => x.reshape(0, -1), /cannot infer -1/],
      [() => x.reshape(-2, 3), /reshape/],
      [() => x.reshape(2 ** 30, 2 ** 30), /2\^53/],
      [() => x.slice(2, 0), /slice: axis 2/],
      [() => x.slice(0, 0.5), /slice: start must be an integer/],
      [() => x.slice(0, 0, NaN), /slice: end must be an integer/],
      [() => x.squeeze(0), /has length 2/],
      [() => x.unsqueeze(4), /unsqueeze: axis 4/],
    ];
    for (const [use, message] of uses) {
      expect(use).toThrow(ShapeError);
      expect(use).toThrow(message);
    }
  });
});
