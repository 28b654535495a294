/**
 * The grammar for choosing heads, as pattern_lens/heads.py reads it: `L3H5`, `L0-3H2`, `LxH0`, `L3`, `x`; terms stand
 * between commas, `~` or blanks. What is half valid gives its valid terms and names the first bad one.
 */

export const GRAMMAR =
  "L<layer>H<head>, each a number, a range such as 0-3, or x for every one; L or H may be left out; x alone is every head";

const PART = "([0-9]+(?:-[0-9]+)?|[x*])";
const TERM = new RegExp(`^(?:(?:L${PART})?(?:H${PART})?|[x*])$`, "i");
// What Python's \s is for text.
const SEPARATORS = /[,~ \t\n\r\f\v\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/**
 * Heads that a text names, in the order written, each once.
 *
 * @param {string} text
 * @param {number} nLayers
 * @param {number} nHeads
 * @returns {{heads: [number, number][], error: null | {message: string, term: string, at: number}}} `at` is the
 *   number of the bad term, from 0
 */
export function parseHeads(text, nLayers, nHeads) {
  const found = new Map();
  let error = null;
  text
    .split(SEPARATORS)
    .filter(Boolean)
    .forEach((term, at) => {
      const { layers, heads, message } = parseTerm(term, nLayers, nHeads);
      if (message) error ??= { message, term, at };
      for (const layer of layers) for (const head of heads) found.set(label(layer, head), [layer, head]);
    });
  return { heads: [...found.values()], error };
}

/** A short text of the grammar that names exactly these heads; their order is not kept. */
export function formatHeads(heads, nLayers, nHeads, separator = ", ") {
  const left = new Set(heads.map(([layer, head]) => layer * nHeads + head));
  if (left.size === 0) return "";
  if (left.size === nLayers * nHeads) return "x";
  const layers = numbers(nLayers);
  const inLayer = numbers(nHeads);
  const rows = layers.filter((layer) => inLayer.every((head) => left.has(layer * nHeads + head)));
  const columns = inLayer.filter((head) => layers.every((layer) => left.has(layer * nHeads + head)));
  for (const layer of rows) for (const head of inLayer) left.delete(layer * nHeads + head);
  for (const head of columns) for (const layer of layers) left.delete(layer * nHeads + head);
  const cells = [...left].sort((a, b) => a - b).map((cell) => [Math.floor(cell / nHeads), cell % nHeads]);
  const byLayer = rectangles(cells).map(([first, second]) => `L${first}H${second}`);
  const byHead = rectangles(cells.map(([layer, head]) => [head, layer])).map(([first, second]) => `L${second}H${first}`);
  return [
    ...spans(rows).map((span) => `L${span}`),
    ...spans(columns).map((span) => `LxH${span}`),
    ...(byHead.join().length < byLayer.join().length ? byHead : byLayer),
  ].join(separator);
}

/** `L3H5`; the mean over the heads of a layer is `L3Hx`, over all heads `LxHx`. */
export function label(layer, head) {
  return `L${layer}H${head}`;
}

/** Layer and head of a label, each a number or `"x"`; null for what is not a label. */
export function parseLabel(text) {
  const match = /^L([0-9]+|x)H([0-9]+|x)$/.exec(text);
  return match && [numberOrEvery(match[1]), numberOrEvery(match[2])];
}

/** Model, layer and head of the address of a single pattern, `{model}.L3.H5`; null for what is not one. */
export function parsePlace(text) {
  const match = /^(.+)\.L([0-9]+|[x*])\.?H([0-9]+|[x*])$/is.exec(text ?? "");
  return match && { model: match[1], layer: numberOrEvery(match[2]), head: numberOrEvery(match[3]) };
}

/** What `parsePlace` reads. */
export function formatPlace(model, layer, head) {
  return `${model}.L${layer}.H${head}`;
}

function numberOrEvery(digits) {
  return /[0-9]/.test(digits) ? Number(digits) : "x";
}

function parseTerm(term, nLayers, nHeads) {
  const match = TERM.exec(term);
  if (!match) return refused(`“${term}” is not a head: write for example L3H5, L0-3H2, LxH0 or x`);
  const layers = numbersOf(match[1], "layer", nLayers, term);
  const heads = numbersOf(match[2], "head", nHeads, term);
  const message = layers.message ?? heads.message;
  return message ? refused(message) : { layers: layers.found, heads: heads.found, message: null };
}

function refused(message) {
  return { layers: [], heads: [], message };
}

function numbersOf(part, what, n, term) {
  if (part === undefined || /^[x*]$/i.test(part)) return { found: numbers(n) };
  const [first, last = first] = part.split("-").map(Number);
  if (first > last) return { message: `the range ${part} of “${term}” is reversed: write the smaller number first` };
  if (last >= n)
    return { message: `“${term}” is not in the model: it has ${n === 1 ? `${what} 0 alone` : `${what}s 0–${n - 1}`}` };
  return { found: numbers(last - first + 1).map((i) => first + i) };
}

function numbers(n) {
  return Array.from({ length: n }, (_, i) => i);
}

/** Pairs as texts: second numbers of each first number as spans, first numbers of the same spans together. */
function rectangles(pairs) {
  const seconds = new Map();
  for (const [first, second] of pairs) seconds.set(first, [...(seconds.get(first) ?? []), second]);
  const firsts = new Map();
  for (const [first, found] of [...seconds].sort(([a], [b]) => a - b)) {
    for (const span of spans(found)) firsts.set(span, [...(firsts.get(span) ?? []), first]);
  }
  return [...firsts].flatMap(([span, found]) => spans(found).map((first) => [first, span]));
}

/** Sorted numbers as `3` or `0-3`. */
function spans(sorted) {
  const found = [];
  for (const number of [...sorted].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
}
