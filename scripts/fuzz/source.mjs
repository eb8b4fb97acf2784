// A generated program is source text whose parts are known, so that it can be printed, run, and made smaller.
//
// A node is a string, a list of parts between brackets ({ open, parts, close, keep }), or a wrapper around another node
// ({ before, inner, after }). A part is { key?, value }; the first `keep` parts cannot be dropped.

export const object = (entries) => ({
  open: '{ ',
  parts: entries.filter(Boolean).map(([key, value]) => ({ key, value })),
  close: ' }',
  keep: 0,
});

export const list = (values) => ({
  open: '[',
  parts: values.map((value) => ({ value })),
  close: ']',
  keep: 0,
});

/** A call whose first `keep` arguments must stay. */
export const call = (name, values, keep = values.length) => ({
  open: `${name}(`,
  parts: values.map((value) => ({ value })),
  close: ')',
  keep,
});

export const wrap = (before, inner, after) => ({ before, inner, after });

/** A call that the referee watches: verb is call or valid. */
export const act = (verb, name, node) => wrap(`f.${verb}('${name}', () => `, node, ')');

/** The text of a node. */
export function print(node) {
  if (typeof node === 'string') return node;
  if (node.inner !== undefined) return node.before + print(node.inner) + node.after;
  const parts = node.parts.map(({ key, value }) =>
    key === undefined ? print(value) : `${key}: ${print(value)}`,
  );
  return node.open + parts.join(', ') + node.close;
}

/** Smaller nodes that may take this one's place. */
export function* smaller(node) {
  if (typeof node === 'string') return;
  if (node.inner !== undefined) {
    if (!node.before.startsWith('await')) yield node.inner;
    for (const inner of smaller(node.inner)) yield { ...node, inner };
    return;
  }
  // Of a call only the last argument can go: the others would move.
  const first = node.open.endsWith('(') ? Math.max(node.keep, node.parts.length - 1) : node.keep;
  for (let n = first; n < node.parts.length; n++)
    yield { ...node, parts: node.parts.filter((_, i) => i !== n) };
  for (let n = 0; n < node.parts.length; n++) {
    for (const value of smaller(node.parts[n].value)) {
      yield { ...node, parts: node.parts.map((part, i) => (i === n ? { ...part, value } : part)) };
    }
  }
}
