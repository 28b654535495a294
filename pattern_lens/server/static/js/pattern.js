/** One attention pattern as the file packs it: rows are queries, columns are keys. */

/** Where row `query` of a triangle begins in its packed values. */
function triangleStart(query) {
  return (query * (query + 1)) / 2;
}

/**
 * Size of the triangle that holds `count` packed values.
 * @param {number} count
 * @returns {number}
 */
export function triangleSize(count) {
  return Math.round((Math.sqrt(8 * count + 1) - 1) / 2);
}

export class Pattern {
  /**
   * @param {{nQuery: number, nKey: number, packing: "triangle" | "rectangle", values: Float32Array | Float64Array}} parts
   *   `values` are packed row-major; a triangle leaves out keys after the query, which are 0.
   */
  constructor({ nQuery, nKey, packing, values }) {
    const expected = packing === "triangle" ? triangleStart(nQuery) : nQuery * nKey;
    if (values.length !== expected || (packing === "triangle" && nQuery !== nKey)) {
      throw new RangeError(`a ${packing} of ${nQuery} queries and ${nKey} keys has ${expected} values, got ${values.length}`);
    }
    this.nQuery = nQuery;
    this.nKey = nKey;
    this.packing = packing;
    this.values = values;
  }

  get isTriangle() {
    return this.packing === "triangle";
  }

  /** Where row `query` begins in `values`. */
  start(query) {
    return this.isTriangle ? triangleStart(query) : query * this.nKey;
  }

  /** How many keys row `query` stores. */
  width(query) {
    return this.isTriangle ? query + 1 : this.nKey;
  }

  /** The stored number; 0 for a key after the query of a triangle. */
  at(query, key) {
    return key < this.width(query) ? this.values[this.start(query) + key] : 0;
  }

  /** Attention from one query to every key, length nKey. */
  row(query) {
    const row = new this.values.constructor(this.nKey);
    const from = this.start(query);
    row.set(this.values.subarray(from, from + this.width(query)));
    return row;
  }

  /** Attention from every query to one key, length nQuery. */
  column(key) {
    const column = new this.values.constructor(this.nQuery);
    for (let query = 0; query < this.nQuery; query++) column[query] = this.at(query, key);
    return column;
  }

  /** The largest number, 0 where there is none. */
  get max() {
    if (this.largest === undefined) this.largest = this.values.reduce((most, value) => (value > most ? value : most), 0);
    return this.largest;
  }

  /**
   * The pattern without its first key: that column is 0 and each row is scaled to sum to 1.
   * A row that holds nothing else (that of the BOS itself) stays 0.
   * @returns {Pattern}
   */
  withoutBos() {
    const values = this.values.slice();
    for (let query = 0; query < this.nQuery; query++)
      renormalise(values.subarray(this.start(query), this.start(query) + this.width(query)));
    return new Pattern({ ...this.parts(), values });
  }

  parts() {
    return { nQuery: this.nQuery, nKey: this.nKey, packing: this.packing };
  }
}

/** The pattern of a rectangle; a triangle where no query sees a key after it. */
export function causal(parts) {
  const { nQuery, nKey, values } = parts;
  const isSeen = values.some((value, at) => at % nKey > Math.floor(at / nKey) && Number.isFinite(value) && value !== 0);
  if (nQuery !== nKey || isSeen) return new Pattern(parts);
  const packed = new values.constructor(triangleStart(nQuery));
  for (let query = 0; query < nQuery; query++)
    packed.set(values.subarray(query * nKey, query * nKey + query + 1), triangleStart(query));
  return new Pattern({ nQuery, nKey, packing: "triangle", values: packed });
}

function renormalise(row) {
  if (row.length) row[0] = 0;
  let sum = 0;
  for (const value of row) sum += value;
  if (sum > 0) for (let key = 1; key < row.length; key++) row[key] /= sum;
}

/**
 * The shortest text that reads back as the very number stored, as numpy prints it.
 * @param {number} value
 * @param {{isDouble?: boolean}} [options] `isDouble`: the number was stored with 64 bits.
 * @returns {string}
 */
export function exactText(value, { isDouble = false } = {}) {
  if (isDouble || !Number.isFinite(value)) return String(value);
  for (let digits = 1; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}
