/**
 * `layer_types` of a model in which every `interval`-th layer is full attention and all others are `other`:
 * `layerTypes(4, 2, 'sliding_attention')` = sliding, full, sliding, full.
 */
export function layerTypes(numLayers: number, interval: number, other: string): string[] {
  return Array.from({ length: numLayers }, (_, i) => ((i + 1) % interval === 0 ? 'full_attention' : other));
}
