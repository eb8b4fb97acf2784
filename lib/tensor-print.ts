import type { TensorLayout } from './tensor-layout.ts';

export function formatTensor(t: TensorLayout): string {
  return `array(shape=[${t.shape}], dtype=${t.dtype})`;
}
