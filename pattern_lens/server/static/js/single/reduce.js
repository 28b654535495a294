/** A pattern with fewer rows and columns, each the number of those it stands for that is farthest from `middle`. */
import { Pattern } from "pattern-lens/pattern.js";

/** For each of `count` numbers the one of `most` places it falls to. */
function places(count, most) {
  return Uint32Array.from({ length: count }, (_, i) => (count > most ? Math.floor((i * most) / count) : i));
}

/**
 * The pattern itself where it fits `width` × `height` pixels, else its maxima.
 * @param {Pattern} pattern
 * @param {{width: number, height: number}} pixels
 * @param {number} [middle] what counts as nothing: 0, or between the two sides of signed numbers
 * @returns {Pattern}
 */
export function reduced(pattern, { width, height }, middle = 0) {
  const { nQuery, nKey, isTriangle, packing } = pattern;
  if (nQuery <= height && nKey <= width) return pattern;
  const most = isTriangle ? Math.min(width, height) : null;
  const rows = places(nQuery, most ?? height);
  const columns = places(nKey, most ?? width);
  const parts = { nQuery: Math.min(nQuery, most ?? height), nKey: Math.min(nKey, most ?? width), packing };
  const count = isTriangle ? (parts.nQuery * (parts.nQuery + 1)) / 2 : parts.nQuery * parts.nKey;
  const out = new Pattern({ ...parts, values: new Float32Array(count).fill(middle) });
  for (let query = 0; query < nQuery; query++) keepMaxima(pattern, query, columns, { into: out.values, start: out.start(rows[query]), middle });
  return out;
}

function keepMaxima(pattern, query, columns, { into, start, middle }) {
  const from = pattern.start(query);
  const width = pattern.width(query);
  for (let key = 0; key < width; key++) {
    const value = pattern.values[from + key];
    const at = start + columns[key];
    if (Math.abs(value - middle) > Math.abs(into[at] - middle)) into[at] = value;
  }
}
