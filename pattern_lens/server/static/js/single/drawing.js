/** The pattern as a picture to keep: PNG, and SVG with the labels as text. */
import { LOG_FLOOR, paintPattern, table } from "pattern-lens/colours.js";
import { Pattern } from "pattern-lens/pattern.js";
import { axisLabel, drawAxes, labelRoom, ticks } from "pattern-lens/single/axes.js";
import { layOut } from "pattern-lens/single/geometry.js";
import { titleOf } from "pattern-lens/single/names.js";

const SVG = "http://www.w3.org/2000/svg";
const FONT = "system-ui, sans-serif";
const SIDE = 900;
const TITLE = 28;
const PNG_RATIO = 2;
const BAR_WIDTH = 100;
const PAPER = { text: "#333", line: "#777" };
// Text of files may hold characters that XML has no way to write.
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

function values({ pattern, map, scale }) {
  const canvas = document.createElement("canvas");
  paintPattern(canvas, pattern, table(map, "linear"), { scale });
  return canvas;
}

/** A picture has at least one pixel a number, so that none is lost. */
function geometryOf({ pattern, queryTokens, keyTokens }) {
  const { nQuery, nKey } = pattern;
  const side = Math.max(SIDE, nQuery + 150, nKey + 150);
  return layOut({
    nQuery,
    nKey,
    width: side,
    height: side,
    queryRoom: labelRoom(nQuery, queryTokens),
    keyRoom: labelRoom(nKey, keyTokens),
  });
}

/** The colours of the scale, from the lowest to the highest. */
function barOf({ map }) {
  const canvas = document.createElement("canvas");
  const levels = Float32Array.from({ length: 256 }, (_, i) => i / 255);
  paintPattern(canvas, new Pattern({ nQuery: 1, nKey: 256, packing: "rectangle", values: levels }), table(map, "linear"));
  return canvas;
}

/** Where the colour bar stands, and what is written at its ends. */
function scaleOf({ scale }, { left, plotWidth }) {
  const x = left + Math.max(plotWidth, BAR_WIDTH + 260) - BAR_WIDTH - 14;
  return { x, y: 11, width: BAR_WIDTH, height: 8, low: scale === "log" ? `log ${LOG_FLOOR}` : "0", high: "1" };
}

function plotOf({ pattern, queryTokens, keyTokens }) {
  const { nQuery, nKey, isTriangle } = pattern;
  return { nQuery, nKey, isTriangle, queryTokens, keyTokens };
}

/** @returns {Promise<Blob>} */
export function pngOf(view) {
  const geometry = geometryOf(view);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(geometry.width, geometry.left + BAR_WIDTH + 280) * PNG_RATIO;
  canvas.height = (geometry.height + TITLE) * PNG_RATIO;
  const context = canvas.getContext("2d");
  context.scale(PNG_RATIO, PNG_RATIO);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#111";
  context.font = `600 14px ${FONT}`;
  context.fillText(titleOf(view), geometry.left, 19, scaleOf(view, geometry).x - geometry.left - 70);
  drawScale(context, view, geometry);
  context.translate(0, TITLE);
  context.imageSmoothingEnabled = false;
  context.drawImage(values(view), geometry.left, geometry.top, geometry.plotWidth, geometry.plotHeight);
  drawAxes(context, geometry, plotOf(view), PAPER);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function drawScale(context, view, geometry) {
  const { x, y, width, height, low, high } = scaleOf(view, geometry);
  context.font = `11px ${FONT}`;
  context.textAlign = "right";
  context.fillText(low, x - 5, y + 8);
  context.textAlign = "left";
  context.fillText(high, x + width + 5, y + 8);
  context.drawImage(barOf(view), x, y, width, height);
}

function scaleNodes(view, geometry) {
  const { x, y, width, height, low, high } = scaleOf(view, geometry);
  const bottom = y + 8 - TITLE;
  return [
    node("image", { x, y: y - TITLE, width, height, href: barOf(view).toDataURL("image/png"), preserveAspectRatio: "none" }),
    node("text", { x: x - 5, y: bottom, "font-size": 11, "text-anchor": "end" }, low),
    node("text", { x: x + width + 5, y: bottom, "font-size": 11 }, high),
  ];
}

function node(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text.replace(NOT_XML, "\ufffd");
  return element;
}

function queryLabels(geometry, { nQuery, queryTokens }) {
  const has = geometry.hasQueryLabels;
  return ticks(nQuery, geometry.cellHeight, has, 40).map((query) =>
    node(
      "text",
      {
        x: geometry.left - 7,
        y: geometry.top + (query + 0.5) * geometry.cellHeight,
        "text-anchor": "end",
        "dominant-baseline": "central",
      },
      has ? axisLabel(query, queryTokens) : String(query),
    ),
  );
}

function keyLabels(geometry, { nKey, keyTokens }) {
  const y = geometry.top + geometry.plotHeight + 7;
  const has = geometry.hasKeyLabels;
  return ticks(nKey, geometry.cellWidth, has, 56).map((key) => {
    const x = geometry.left + (key + 0.5) * geometry.cellWidth;
    if (!has) return node("text", { x, y: y + 8, "text-anchor": "middle" }, String(key));
    return node(
      "text",
      { transform: `translate(${x} ${y}) rotate(-90)`, "text-anchor": "end", "dominant-baseline": "central" },
      axisLabel(key, keyTokens),
    );
  });
}

/** @returns {string} */
export function svgOf(view) {
  const geometry = geometryOf(view);
  const plot = plotOf(view);
  const { left, top, plotWidth, plotHeight, height } = geometry;
  const width = Math.max(geometry.width, left + BAR_WIDTH + 280);
  const root = node("svg", {
    viewBox: `0 ${-TITLE} ${width} ${height + TITLE}`,
    width,
    height: height + TITLE,
    "font-family": FONT,
    "font-size": Math.min(12, Math.max(9, geometry.hasQueryLabels ? geometry.cellHeight - 1 : 12)),
    fill: PAPER.text,
  });
  root.append(
    node("title", {}, titleOf(view)),
    node("rect", { x: 0, y: -TITLE, width, height: height + TITLE, fill: "#fff" }),
    node("text", { x: left, y: -9, "font-size": 14, "font-weight": 600, fill: "#111" }, titleOf(view)),
    node("image", {
      x: left,
      y: top,
      width: plotWidth,
      height: plotHeight,
      href: values(view).toDataURL("image/png"),
      preserveAspectRatio: "none",
      "image-rendering": "pixelated",
    }),
    node("path", { d: `M${left} ${top}v${plotHeight}h${plotWidth}`, fill: "none", stroke: PAPER.line }),
    ...scaleNodes(view, geometry),
    ...queryLabels(geometry, plot),
    ...keyLabels(geometry, plot),
  );
  return new XMLSerializer().serializeToString(root);
}
