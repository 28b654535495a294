/** How the parameters of an address are read: a reader gives the value, or throws why it is none. */

export const MIN_SIZE = 24;
export const MAX_SIZE = 600;
export const SORTS = ["model", "layer", "head", "prompt", "function"];
const MEASURES = ["total", "direct", "write", "activation"];
export const HEAD_VALUES = ["pattern", "scores", "total", "direct"];
const FEATURE_COLUMNS = ["density", "max", "logit", "neuron", "correlation", "feature"];
const GROUPS = ["top", "bottom", "random"];
export const BORDERS = ["none", "model", "function", "layer", "head", "prompt"];

export const list = (text) => text.split("~").filter(Boolean);
export const text = (value) => value;
export const oneOf =
  (...known) =>
  (value) =>
    known.includes(value) ? value : refuse(`expected ${known.join(" or ")}`);

export function readSort(value) {
  const name = value.replace(/^-/, "");
  if (!SORTS.includes(name) && !/^score\../s.test(name))
    refuse(`expected ${SORTS.join(", ")} or score.{name}, with - before it to turn it round`);
  return value;
}

export function readOrder(value) {
  const [measure, way = "high", ...more] = value.split(".");
  if (!MEASURES.includes(measure) || !["high", "low"].includes(way) || more.length)
    refuse(`expected ${MEASURES.join(", ")}, with .high or .low behind it to go by the sign`);
  return value;
}

export function readFeatureOrder(value) {
  if (!FEATURE_COLUMNS.includes(value.replace(/^-/, "")))
    refuse(`expected ${FEATURE_COLUMNS.join(", ")}, with - before it to turn it round`);
  return value;
}

export function readGroup(value) {
  return GROUPS.includes(value) || /^[0-9]{1,3}$/.test(value) ? value : refuse(`expected ${GROUPS.join(", ")} or the number of an interval`);
}

/** Labels stand between `~`; a comma is understood too, where it does not stand in a label such as `L3H5@7,4`. */
export function readAblations(value) {
  return value.split(/~|,(?=L[0-9]|[0-9]+_|embed|backward:)/).filter(Boolean);
}

export function readShownHead(value) {
  const match = /^(?:.+\.)?L([0-9]{1,6})\.?H([0-9]{1,6})$/.exec(value);
  return match ? `L${match[1]}H${match[2]}` : refuse("expected a head such as L3H5");
}

export function readSize(value) {
  if (!/^[0-9]+$/.test(value)) refuse(`expected a number of pixels, ${MIN_SIZE}–${MAX_SIZE}`);
  return Math.min(MAX_SIZE, Math.max(MIN_SIZE, Number(value)));
}

export function readNumber(what) {
  return (value) => (/^[0-9]{1,9}$/.test(value) ? Number(value) : refuse(`expected ${what}, a whole number`));
}

export function readTokens(value) {
  return /^[0-9]{1,9}$/.test(value) ? Number(value) : refuse("expected a number of tokens");
}

export function readPlace(value) {
  const match = /^([0-9]{1,9})\.([0-9]{1,9})$/.exec(value);
  return match ? { sequence: Number(match[1]), place: Number(match[2]) } : refuse("expected {sequence}.{place}");
}

export function readCell(value) {
  const match = /^([0-9]{1,9})\.([0-9]{1,9})$/.exec(value);
  return match ? { query: Number(match[1]), key: Number(match[2]) } : refuse("expected {query}.{key}");
}

function refuse(message) {
  throw new Error(message);
}
