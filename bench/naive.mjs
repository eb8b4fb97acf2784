// Causal attention as one would first write it in JavaScript: three loops over float32 arrays.

/** q [1, Hq, L, D], k [1, Hkv, L, D], v [1, Hkv, L, Dv], all contiguous; writes out [1, Hq, L, Dv]. */
export function naiveAttention(q, k, v, out) {
  const [, numHeads, length, headDim] = q.shape;
  const groupSize = numHeads / k.shape[1];
  const valueDim = v.shape[3];
  const scale = 1 / Math.sqrt(headDim);
  const scores = new Float32Array(length);
  out.data.fill(0);
  for (let h = 0; h < numHeads; h++) {
    const kvHead = Math.floor(h / groupSize);
    for (let i = 0; i < length; i++) {
      const qRow = (h * length + i) * headDim;
      let max = -Infinity;
      for (let j = 0; j <= i; j++) {
        const kRow = (kvHead * length + j) * headDim;
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += q.data[qRow + d] * k.data[kRow + d];
        scores[j] = dot * scale;
        max = Math.max(max, scores[j]);
      }
      let sum = 0;
      for (let j = 0; j <= i; j++) {
        scores[j] = Math.exp(scores[j] - max);
        sum += scores[j];
      }
      const outRow = (h * length + i) * valueDim;
      for (let j = 0; j <= i; j++) {
        const weight = scores[j] / sum;
        const vRow = (kvHead * length + j) * valueDim;
        for (let d = 0; d < valueDim; d++) out.data[outRow + d] += weight * v.data[vRow + d];
      }
    }
  }
}
