/** Colours that tell models, figures, layers, heads or prompts apart, and what they mean. */
import { css, table } from "pattern-lens/colours.js";
import { h, replace } from "pattern-lens/dom.js";

// Okabe and Ito's colours, told apart by colour-blind readers; black and white are left to the page.
const CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#8c6bb1"];
const ORDERED = new Set(["layer", "head"]);
const MAX_SHOWN = 24;

/**
 * @param {string} property
 * @param {import("./items.js").Item[]} items
 * @param {{id: Function, text: Function}} titles
 * @param {Record<string, Map<string, number>>} ranks places of models, prompts and figures
 * @returns {{colour: (item: object) => string | null, entries: {text: string, colour: string}[]}}
 */
export function borders(property, items, titles, ranks) {
  if (property === "none") return { colour: () => null, entries: [] };
  const texts = new Map();
  for (const item of items) {
    const id = titles.id(item, property);
    if (!texts.has(id)) texts.set(id, titles.text(item, property));
  }
  const ids = [...texts.keys()];
  // Colours stay what they are when the pictures are sorted anew.
  const place = ORDERED.has(property) ? (id) => id : (id) => ranks[property].get(id) ?? -1;
  ids.sort((a, b) => place(a) - place(b));
  const colours = new Map(ids.map((id, i) => [id, ORDERED.has(property) ? ordered(i, ids.length) : category(i)]));
  return {
    colour: (item) => colours.get(titles.id(item, property)),
    entries: ids.map((id) => ({ text: texts.get(id), colour: colours.get(id) })),
  };
}

/** The legend of border colours. */
export function showLegend(element, { entries }) {
  element.hidden = entries.length === 0;
  const shown = entries.slice(0, MAX_SHOWN);
  replace(
    element,
    shown.map(({ text, colour }) =>
      h("li", {}, h("span", { class: "swatch", style: { background: colour } }), h("span", { class: "name" }, text)),
    ),
    entries.length > MAX_SHOWN && h("li", { class: "muted" }, `and ${entries.length - MAX_SHOWN} more`),
  );
}

/** A place on a colour map for things in an order; the ends, which vanish on white or black, are left out. */
function ordered(i, n) {
  return css(table("plasma")[Math.round(20 + (n > 1 ? i / (n - 1) : 0) * 205)]);
}

function category(i) {
  if (i < CATEGORIES.length) return CATEGORIES[i];
  // Steps of the golden angle keep neighbours apart, however many there are.
  return `hsl(${Math.round((i * 137.508) % 360)} 60% 50%)`;
}
