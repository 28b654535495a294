/** Colour maps (from `api/colours.json`, colour-blind-safe) and how numbers are painted with them, one pixel a number. */
import { triangleSize } from "pattern-lens/pattern.js";

/** Numbers at or below this have the lowest colour of a log scale. */
export const LOG_FLOOR = 1e-4;
export const DEFAULT_MAP = "viridis";
const maps = new Map();

function decode(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/**
 * Fetches the colour maps once; the functions below need them.
 * @param {{colours: () => Promise<Record<string, {colours: string, kind: string}>>}} source
 */
export async function loadColours(source) {
  if (maps.size) return;
  for (const [name, { colours, kind }] of Object.entries(await source.colours()))
    maps.set(name, { rgb: decode(colours), kind, tables: new Map() });
}

/**
 * Names of the colour maps of a kind, or of all.
 * @param {"sequential" | "diverging"} [kind]
 * @returns {string[]}
 */
export function names(kind) {
  return [...maps].filter(([, map]) => !kind || map.kind === kind).map(([name]) => name);
}

/** Where a number of 0–1 lies on a colour map, 0–1. */
export function position(value, scale) {
  if (scale !== "log") return value;
  return value > LOG_FLOOR ? 1 - Math.log10(value) / Math.log10(LOG_FLOOR) : 0;
}

function build(rgb, scale) {
  const bytes = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const at = 3 * Math.min(255, Math.max(0, Math.round(255 * position(level / 255, scale))));
    bytes.set([rgb[at], rgb[at + 1], rgb[at + 2], 255], 4 * level);
  }
  return new Uint32Array(bytes.buffer);
}

/**
 * Pixels of the 256 byte levels of a picture, ready for a canvas; an unknown name gives the default map.
 * @param {string} name
 * @param {"linear" | "log"} [scale]
 * @returns {Uint32Array}
 */
export function table(name, scale = "linear") {
  const map = maps.get(name) ?? maps.get(DEFAULT_MAP) ?? maps.values().next().value;
  if (!map) throw new Error("colour maps are not loaded yet: await loadColours(source) first");
  if (!map.tables.has(scale)) map.tables.set(scale, build(map.rgb, scale));
  return map.tables.get(scale);
}

/**
 * A pixel of a table as CSS colour.
 * @param {number} pixel
 */
export function css(pixel) {
  return `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;
}

/** Writes rows of packed values as pixels; what a triangle leaves out stays transparent. */
function paint(canvas, { nQuery, nKey, isTriangle }, pixel) {
  canvas.width = nKey;
  canvas.height = nQuery;
  if (!nKey || !nQuery) return;
  const context = canvas.getContext("2d");
  const image = context.createImageData(nKey, nQuery);
  const pixels = new Uint32Array(image.data.buffer);
  for (let query = 0, from = 0; query < nQuery; query++) {
    const width = isTriangle ? query + 1 : nKey;
    const to = query * nKey;
    for (let key = 0; key < width; key++) pixels[to + key] = pixel(from + key);
    from += width;
  }
  context.putImageData(image, 0, 0);
}

/** Size of a picture in pixels: a picture of a long prompt is reduced by `step`. */
export function pictureSize({ values, packing, nQuery, nKey, step = 1 }) {
  if (packing === "triangle") {
    const n = triangleSize(values.length);
    return { nQuery: n, nKey: n, isTriangle: true };
  }
  const isReduced = values.length !== nQuery * nKey;
  const size = (n) => (isReduced ? Math.ceil(n / step) : n);
  return { nQuery: size(nQuery), nKey: size(nKey), isTriangle: false };
}

/**
 * Paints a picture of bytes.
 * @param {HTMLCanvasElement} canvas
 * @param {{values: Uint8Array, packing: string, nQuery: number, nKey: number, step?: number}} picture
 * @param {Uint32Array} colours
 */
export function paintBytes(canvas, picture, colours) {
  const { values } = picture;
  paint(canvas, pictureSize(picture), (at) => colours[values[at]]);
}

/**
 * Paints exact values. `colours` is a *linear* table: the scale is applied to the exact number, not to its byte.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./pattern.js").Pattern} pattern
 * @param {Uint32Array} colours
 * @param {{scale?: "linear" | "log", max?: number}} [options] `max`: the number that has the highest colour.
 */
export function paintPattern(canvas, pattern, colours, { scale = "linear", max = 1 } = {}) {
  const { values } = pattern;
  const level = (value) => Math.min(255, Math.max(0, Math.round(255 * position(value / max, scale)))) || 0;
  paint(canvas, pattern, (at) => colours[level(values[at])]);
}
