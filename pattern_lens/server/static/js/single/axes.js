/** Draws the axes of a heat map on a canvas: token labels where each has room, else ticks of indexes. */
import { tokenLabel } from "pattern-lens/tokens.js";
import { tickStep } from "pattern-lens/single/geometry.js";

const GAP = 7;
const FAMILY = "system-ui, sans-serif";
// Isolates keep a right-to-left token from turning round the index before it.
const isolate = (text) => `\u2066${text}\u2069`;
const MOST_LETTERS = 18;
const LETTER_WIDTH = 6.8;

/** A token's label, shortened to what an axis has room for. */
export function axisLabel(index, tokens) {
  const text = tokens?.[index];
  if (text === undefined) return String(index);
  const letters = [...tokenLabel(index, text)];
  const short = letters.length > MOST_LETTERS ? [...letters.slice(0, MOST_LETTERS - 1), "…"] : letters;
  return isolate(short.join(""));
}

/** Pixels that the longest label of an axis takes, about. */
export function labelRoom(count, tokens) {
  let most = String(count).length;
  if (tokens) for (let i = 0; i < tokens.length; i++) most = Math.max(most, axisLabel(i, tokens).length - 2);
  return Math.min(126, Math.max(44, Math.round(LETTER_WIDTH * most) + 22));
}

function font(cell) {
  return `${Math.min(12, Math.max(9, Math.floor(cell) - 1))}px ${FAMILY}`;
}

/** Every index that gets a tick, or every index where labels fit. */
export function ticks(count, cell, hasLabels, gap) {
  const step = hasLabels ? 1 : tickStep(cell, gap);
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}

function queryAxis(context, geometry, { nQuery, queryTokens }) {
  context.textAlign = "right";
  context.font = font(geometry.hasQueryLabels ? geometry.cellHeight : 12);
  for (const query of ticks(nQuery, geometry.cellHeight, geometry.hasQueryLabels, 40)) {
    const y = geometry.top + (query + 0.5) * geometry.cellHeight;
    context.fillText(
      geometry.hasQueryLabels ? axisLabel(query, queryTokens) : String(query),
      geometry.left - GAP,
      y,
      geometry.left - GAP - 2,
    );
  }
}

function keyAxis(context, geometry, { nKey, keyTokens }) {
  const y = geometry.top + geometry.plotHeight + GAP;
  context.font = font(geometry.hasKeyLabels ? geometry.cellWidth : 12);
  for (const key of ticks(nKey, geometry.cellWidth, geometry.hasKeyLabels, 56)) {
    const x = geometry.left + (key + 0.5) * geometry.cellWidth;
    if (geometry.hasKeyLabels) upright(context, axisLabel(key, keyTokens), x, y);
    else {
      context.textAlign = "center";
      context.fillText(String(key), x, y + 6);
    }
  }
}

function upright(context, text, x, y) {
  context.save();
  context.translate(x, y);
  context.rotate(-Math.PI / 2);
  context.textAlign = "right";
  context.fillText(text, 0, 0, 104);
  context.restore();
}

function frame(context, geometry, { isTriangle }, colour) {
  const { left, top, plotWidth, plotHeight } = geometry;
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(left - 0.5, top);
  context.lineTo(left - 0.5, top + plotHeight + 0.5);
  context.lineTo(left + plotWidth, top + plotHeight + 0.5);
  if (!isTriangle) {
    context.lineTo(left + plotWidth + 0.5, top - 0.5);
    context.lineTo(left - 0.5, top - 0.5);
  }
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context In CSS pixels.
 * @param {import("./geometry.js").Geometry} geometry
 * @param {{nQuery: number, nKey: number, isTriangle: boolean, queryTokens?: string[], keyTokens?: string[]}} plot
 * @param {{text: string, line: string}} colours
 */
export function drawAxes(context, geometry, plot, { text, line }) {
  context.textBaseline = "middle";
  context.direction = "ltr";
  context.fillStyle = text;
  frame(context, geometry, plot, line);
  queryAxis(context, geometry, plot);
  keyAxis(context, geometry, plot);
}
