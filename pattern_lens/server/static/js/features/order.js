/** The order of the table of features, and which of them a search leaves in it. */
import { COLUMNS } from "pattern-lens/features/words.js";

/** The column that an order names, and whether its lowest come first. */
export function parseFeatureOrder(order) {
  const column = order.replace(/^-/, "");
  const isTurned = order.startsWith("-");
  // Numbers of features go up, what is measured goes down, unless somebody turns it round.
  return { column, isUp: (column === "feature") !== isTurned };
}

/** Rows of a table in an order; those without the number come last, and equal ones stay by their feature. */
export function ordered(table, order) {
  const { column, isUp } = parseFeatureOrder(order);
  const values = table[COLUMNS.find(([name]) => name === column)[3]];
  const rows = Uint32Array.from(table.feature, (_, row) => row);
  if (!values) return rows;
  const sign = isUp ? 1 : -1;
  const size = Float64Array.from(values, (value) => (value === null ? Infinity : sign * value));
  return rows.sort((a, b) => (size[a] === size[b] ? a - b : size[a] - size[b]));
}

/**
 * Rows that a search leaves: features whose number begins with it, and those found by a token that holds it.
 *
 * @param {Uint32Array} rows
 * @param {object} table
 * @param {{raised: number[][], fires_on: number[][], texts: Record<string, string>} | null} tokens
 * @param {string} words
 * @param {"any" | "raised" | "fires"} within
 */
export function found(rows, table, tokens, words, within) {
  if (!words) return rows;
  const isNumber = /^[0-9]+$/.test(words);
  const small = words.toLowerCase();
  const ids = new Set();
  for (const [id, text] of Object.entries(tokens?.texts ?? {})) if (text.toLowerCase().includes(small)) ids.add(Number(id));
  const lists = [within !== "fires" && tokens?.raised, within !== "raised" && tokens?.fires_on].filter(Boolean);
  const isFound = (row) =>
    (isNumber && String(table.feature[row]).startsWith(words)) || lists.some((list) => list[row].some((id) => ids.has(id)));
  return rows.filter(isFound);
}
