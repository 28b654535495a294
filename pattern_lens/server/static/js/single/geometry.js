/** Where the cells of a heat map lie on the screen: queries downwards, keys to the right. Lengths are CSS pixels. */

const LEAST_LABEL = 10;
const LARGEST_CELL = 44;
const LEAST_SIDE = 120;
const MARGIN = { top: 6, right: 14, ticks: 30 };

/** The cell size that fits, on whole device pixels where a cell has at least one. */
function fit(room, count, ratio) {
  const size = Math.min(LARGEST_CELL, room / count);
  return size * ratio >= 1 ? Math.floor(size * ratio) / ratio : size;
}

/** Cells are square, unless one side would be too thin to read. */
function cellSizes({ nQuery, nKey, width, height, ratio }) {
  const square = Math.min(fit(width, nKey, ratio), fit(height, nQuery, ratio));
  const stretched = (room, count) => Math.max(square, fit(Math.min(room, LEAST_SIDE), count, ratio));
  return { cellWidth: stretched(width, nKey), cellHeight: stretched(height, nQuery) };
}

/**
 * @typedef {object} Geometry
 * @property {number} left @property {number} top Corner of the plot.
 * @property {number} cellWidth @property {number} cellHeight
 * @property {number} plotWidth @property {number} plotHeight
 * @property {number} width @property {number} height Size with axes.
 * @property {boolean} hasQueryLabels @property {boolean} hasKeyLabels Whether every token has room for its label.
 */

/**
 * @param {{nQuery: number, nKey: number, width: number, height: number, queryRoom: number, keyRoom: number, ratio?: number}} room
 *   `width`, `height`: what there is for plot and axes; `queryRoom`, `keyRoom`: of that, what labels need; `ratio`: device
 *   pixels per CSS pixel.
 * @returns {Geometry}
 */
export function layOut({ nQuery, nKey, width, height, queryRoom, keyRoom, ratio = 1 }) {
  const across = Math.max(LEAST_SIDE, width - queryRoom - MARGIN.right);
  const size = (bottom) => cellSizes({ nQuery, nKey, width: across, height: height - MARGIN.top - bottom, ratio });
  let bottom = keyRoom;
  let cells = size(bottom);
  if (cells.cellWidth < LEAST_LABEL) {
    bottom = MARGIN.ticks;
    cells = size(bottom);
  }
  const plotWidth = cells.cellWidth * nKey;
  const plotHeight = cells.cellHeight * nQuery;
  return {
    ...cells,
    left: queryRoom,
    top: MARGIN.top,
    plotWidth,
    plotHeight,
    width: queryRoom + plotWidth + MARGIN.right,
    height: MARGIN.top + plotHeight + bottom,
    hasQueryLabels: cells.cellHeight >= LEAST_LABEL,
    hasKeyLabels: bottom === keyRoom,
  };
}

/** The cell under a point of the plot, or null beside it. */
export function cellAt(geometry, { nQuery, nKey }, x, y) {
  const query = Math.floor((y - geometry.top) / geometry.cellHeight);
  const key = Math.floor((x - geometry.left) / geometry.cellWidth);
  return query >= 0 && query < nQuery && key >= 0 && key < nKey ? { query, key } : null;
}

/** The point in the middle of a cell. */
export function middle(geometry, { query, key }) {
  return { x: geometry.left + (key + 0.5) * geometry.cellWidth, y: geometry.top + (query + 0.5) * geometry.cellHeight };
}

/** A round step of indexes whose ticks stay `gap` pixels apart. */
export function tickStep(cell, gap) {
  for (let power = 1; ; power *= 10) {
    for (const step of [power, 2 * power, 5 * power]) if (step * cell >= gap) return step;
  }
}
