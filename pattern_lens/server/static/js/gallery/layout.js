/** Where each picture lies: rows of equal tiles under headings, so that the place of any one is known without drawing. */

export const GAP = 8;
export const PADDING = 12;
const HEADING = 32;

export class Layout {
  /**
   * @param {{title: string | null, first: number, count: number}[]} parts
   * @param {{width: number, tileWidth: number, tileHeight: number}} sizes in pixels
   */
  constructor(parts, { width, tileWidth, tileHeight }) {
    this.tileWidth = tileWidth;
    this.tileHeight = tileHeight;
    this.columns = Math.max(1, Math.floor((width - 2 * PADDING + GAP) / (tileWidth + GAP)));
    let top = PADDING;
    this.parts = parts.map((part) => {
      const heading = part.title === null ? 0 : HEADING;
      const rows = Math.ceil(part.count / this.columns);
      const placed = { ...part, top, tilesTop: top + heading, rows, bottom: top + heading + rows * this.rowHeight };
      top = placed.bottom;
      return placed;
    });
    this.height = top + PADDING - (parts.length ? GAP : 0);
  }

  get rowHeight() {
    return this.tileHeight + GAP;
  }

  /** Place of the tile with this number. */
  at(number) {
    const part = this.parts[this.#lastWhere((one) => one.first <= number)];
    const within = number - part.first;
    return {
      left: PADDING + (within % this.columns) * (this.tileWidth + GAP),
      top: part.tilesTop + Math.floor(within / this.columns) * this.rowHeight,
    };
  }

  /** Numbers of tiles [first, end) and of headings that lie between two heights. */
  between(top, bottom) {
    const numbers = [];
    const headings = [];
    for (
      let i = Math.max(
        0,
        this.#lastWhere((one) => one.top <= top),
      );
      i < this.parts.length;
      i++
    ) {
      const part = this.parts[i];
      if (part.top > bottom) break;
      if (part.title !== null && part.tilesTop > top) headings.push(i);
      const from = Math.max(0, Math.floor((top - part.tilesTop) / this.rowHeight));
      const to = Math.min(part.rows, Math.ceil((bottom - part.tilesTop) / this.rowHeight));
      const end = Math.min(part.count, to * this.columns);
      for (let within = from * this.columns; within < end; within++) numbers.push(part.first + within);
    }
    return { numbers, headings };
  }

  #lastWhere(isBefore) {
    let low = 0;
    let high = this.parts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(this.parts[middle])) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
