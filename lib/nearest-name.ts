/** Words further apart than this share no more than chance; suggesting them would mislead. */
const MAX_DISTANCE = 3;

/** A name shorter than this stands inside too many words. */
const MIN_PART = 4;

/**
 * The name a misspelt word most likely stands for: the one at the smallest Levenshtein distance, upper and lower
 * case being the same, within 3 edits and while half of the word stays; where none is so near, the longest that is part of
 * the word, as `mask` is of `attn_mask`, or that the word is part of; else undefined. Of equals the first wins.
 */
export function nearestName(word: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(MAX_DISTANCE, word.length - 1, Math.ceil(word.length / 2)) + 1;
  for (const name of names) {
    if (Math.abs(name.length - word.length) >= bestDistance) continue;
    const distance = editDistance(word.toLowerCase(), name.toLowerCase());
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best ?? relatedName(word, names);
}

function relatedName(word: string, names: readonly string[]): string | undefined {
  const plain = word.toLowerCase();
  let best: string | undefined;
  for (const name of names) {
    const other = name.toLowerCase();
    if (Math.min(plain.length, other.length) < MIN_PART || name.length <= (best?.length ?? 0)) continue;
    if (plain.includes(other) || other.includes(plain)) best = name;
  }
  return best;
}

/** Levenshtein distance: the fewest insertions, deletions and replacements that turn a into b. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min((previous[j] as number) + 1, (row[j - 1] as number) + 1, replaced));
    }
    previous = row;
  }
  return previous[b.length] as number;
}
