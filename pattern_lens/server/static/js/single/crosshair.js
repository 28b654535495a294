/** Draws what follows the pointer over a heat map: the row and column of a cell, its tokens at the axes, a lens over small cells. */
import { axisLabel } from "pattern-lens/single/axes.js";
import { css, position } from "pattern-lens/colours.js";

const LENS_CELLS = 15;
const LENS_CELL = 11;
const SMALL_CELL = 6;
const FAMILY = "system-ui, sans-serif";

/** A band with a dark edge outside, so that it is seen on every colour map. */
function band(context, x, y, width, height, colour) {
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.strokeRect(x, y, width, height);
  context.lineWidth = 1;
  context.strokeStyle = colour;
  context.strokeRect(x, y, width, height);
}

function lines(context, geometry, { query, key }, accents) {
  const { left, top, cellWidth, cellHeight, plotHeight } = geometry;
  const [x, y] = [left + key * cellWidth, top + query * cellHeight];
  const [width, height] = [Math.max(cellWidth, 2), Math.max(cellHeight, 2)];
  band(context, left - 4, y, x - left + 4, height, accents["query-line"]);
  band(context, x, y + height, width, top + plotHeight - y - height + 4, accents["key-line"]);
  context.lineWidth = 3;
  context.strokeStyle = "#000";
  context.strokeRect(x, y, width, height);
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.strokeRect(x, y, width, height);
}

function pill(context, text, { x, y, align, colour, ink, width }) {
  const textWidth = Math.min(context.measureText(text).width, 108);
  let start = align === "right" ? x - textWidth : x - textWidth / 2;
  start = Math.max(6, Math.min(start, width - textWidth - 6));
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(start - 5, y - 9, textWidth + 10, 18, 4);
  context.fill();
  context.fillStyle = ink;
  context.textAlign = "left";
  context.fillText(text, start, y + 0.5, 108);
}

function uprightPill(context, text, { x, y, colour, ink }) {
  const textWidth = Math.min(context.measureText(text).width, 100);
  context.save();
  context.translate(x, y);
  context.rotate(-Math.PI / 2);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(-textWidth - 5, -9, textWidth + 10, 18, 4);
  context.fill();
  context.fillStyle = ink;
  context.textAlign = "right";
  context.fillText(text, 0, 0.5, 100);
  context.restore();
}

function labels(context, geometry, plot, { query, key }, accents) {
  const { left, top, cellWidth, cellHeight, plotHeight, width } = geometry;
  context.font = `600 12px ${FAMILY}`;
  context.textBaseline = "middle";
  context.direction = "ltr";
  const y = top + (query + 0.5) * cellHeight;
  const x = left + (key + 0.5) * cellWidth;
  pill(context, axisLabel(query, plot.queryTokens), {
    x: left - 10,
    y,
    align: "right",
    colour: accents.query,
    ink: accents.ink,
    width,
  });
  const text = axisLabel(key, plot.keyTokens);
  const at = top + plotHeight + 10;
  if (geometry.hasKeyLabels) uprightPill(context, text, { x, y: at, colour: accents.key, ink: accents.ink });
  else pill(context, text, { x, y: at + 6, align: "center", colour: accents.key, ink: accents.ink, width });
}

/** The corner of the lens: a triangle leaves the upper right free; elsewhere it keeps away from the cell. */
function lensCorner({ left, top, plotWidth, plotHeight }, { isTriangle, nQuery, nKey }, { query, key }, side) {
  const isRight = isTriangle || key < nKey / 2;
  const isTop = isTriangle || query >= nQuery / 2;
  return { x: isRight ? left + plotWidth - side : left + 8, y: isTop ? top + 2 : top + plotHeight - side - 8 };
}

function lens(context, geometry, plot, cell) {
  const side = LENS_CELLS * LENS_CELL;
  if (geometry.plotWidth < 2.4 * side || geometry.plotHeight < 2.4 * side) return;
  const corner = lensCorner(geometry, plot, cell, side);
  const half = (LENS_CELLS - 1) / 2;
  context.fillStyle = plot.ground;
  context.fillRect(corner.x, corner.y, side, side);
  for (let row = 0; row < LENS_CELLS; row++) {
    const query = cell.query - half + row;
    if (query < 0 || query >= plot.nQuery) continue;
    for (let column = 0; column < LENS_CELLS; column++) {
      const key = cell.key - half + column;
      if (key < 0 || key >= plot.pattern.width(query)) continue;
      context.fillStyle = plot.colour(plot.pattern.at(query, key));
      context.fillRect(corner.x + column * LENS_CELL, corner.y + row * LENS_CELL, LENS_CELL, LENS_CELL);
    }
  }
  context.lineWidth = 1;
  context.strokeStyle = plot.line;
  context.strokeRect(corner.x + 0.5, corner.y + 0.5, side - 1, side - 1);
  const at = half * LENS_CELL;
  context.strokeStyle = "#000";
  context.lineWidth = 3;
  context.strokeRect(corner.x + at, corner.y + at, LENS_CELL, LENS_CELL);
  context.strokeStyle = "#fff";
  context.lineWidth = 1.5;
  context.strokeRect(corner.x + at, corner.y + at, LENS_CELL, LENS_CELL);
}

/** CSS colours of numbers, one text a level, so that a frame of the lens makes none anew. */
export function colourOf(table, scale) {
  const texts = Array.from(table, css);
  return (value) => texts[Math.min(255, Math.max(0, Math.round(255 * position(value, scale)))) || 0];
}

/**
 * Draws the cross-hair of a cell on a cleared canvas.
 * @param {CanvasRenderingContext2D} context In CSS pixels.
 * @param {import("./geometry.js").Geometry} geometry
 * @param {object} plot
 * @param {{query: number, key: number}} cell
 * @param {Record<"query" | "key" | "query-line" | "key-line" | "ink", string>} accents
 */
export function drawCrosshair(context, geometry, plot, cell, accents) {
  lines(context, geometry, cell, accents);
  labels(context, geometry, plot, cell, accents);
  if (Math.min(geometry.cellWidth, geometry.cellHeight) < SMALL_CELL) lens(context, geometry, plot, cell);
}
