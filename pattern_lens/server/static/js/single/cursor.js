/** The cell that is looked at: the one under the pointer, until one is locked. */

const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);

export class Cursor {
  constructor() {
    this.cell = null;
    this.isLocked = false;
    this.size = { nQuery: 0, nKey: 0 };
    this.listeners = [];
  }

  /** Calls back with this cursor after each change. */
  onChange(listener) {
    this.listeners.push(listener);
  }

  /** For another pattern; a cell outside of it is brought back to its edge. */
  resize({ nQuery, nKey }) {
    this.size = { nQuery, nKey };
    if (this.cell) this.cell = this.inside(this.cell);
  }

  has({ query, key }) {
    return query < this.size.nQuery && key < this.size.nKey;
  }

  inside({ query, key }) {
    return { query: clamp(query, this.size.nQuery), key: clamp(key, this.size.nKey) };
  }

  /** The pointer is over a cell: shown unless another is locked. */
  hover(cell) {
    if (!this.isLocked && !this.isAt(cell)) this.set(cell, false);
  }

  /** A click: locks the cell, or unlocks the one that is locked. */
  pick(cell) {
    this.set(cell, !(this.isLocked && this.isAt(cell)));
  }

  lock(cell) {
    this.set(this.inside(cell), true);
  }

  unlock() {
    if (this.isLocked) this.set(this.cell, false);
  }

  isAt({ query, key }) {
    return this.cell?.query === query && this.cell?.key === key;
  }

  set(cell, isLocked) {
    this.cell = cell;
    this.isLocked = isLocked;
    this.announce();
  }

  announce() {
    for (const listener of this.listeners) listener(this);
  }
}
