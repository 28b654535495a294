/**
 * The pictures of a gallery: one for each model, head, prompt and figure that is chosen, in the order asked for.
 *
 * @typedef {object} Item
 * @property {object} model
 * @property {import("./model.js").Prompt | null} prompt null: of no one prompt
 * @property {string} name of the figure
 * @property {number | null} layer
 * @property {number | null} head
 * @property {{href: string | null, error: string | null, format: string | null} | null} figure null: drawn from the data
 */

/** More are not listed: a browser's page is not so high. */
export const MAX_ITEMS = 200_000;

/**
 * @param {{model: object, prompts: object[], heads: [number, number][]}[]} shown
 * @param {string[]} functions
 * @param {Map<string, object[]>} figures what `figures.json` lists, by `{model}/{prompt key}`, `{model}/` of no prompt
 * @returns {{items: Item[], n: number}} `n`: how many there are in all
 */
export function listItems(shown, functions, figures) {
  const items = [];
  let n = 0;
  const add = (item) => {
    if (++n <= MAX_ITEMS) items.push(item);
  };
  for (const { model, prompts, heads } of shown) {
    const chosen = new Set(heads.map(([layer, head]) => layer * model.n_heads + head));
    const layers = new Set(heads.map(([layer]) => layer));
    const isChosen = ({ layer, head }) =>
      layer === null || (head === null ? layers.has(layer) : chosen.has(layer * model.n_heads + head));
    for (const prompt of [...prompts, null]) {
      const stored = figures.get(`${model.id}/${prompt?.key ?? ""}`) ?? [];
      for (const name of functions) {
        if (isDrawn(model, name)) {
          if (prompt) for (const [layer, head] of heads) add({ model, prompt, name, layer, head, figure: null });
        } else {
          for (const figure of stored)
            if (figure.name === name && isChosen(figure))
              add({ model, prompt, name, layer: figure.layer, head: figure.head, figure });
        }
      }
    }
  }
  return { items, n };
}

/** Patterns are drawn from the data, unless the file holds pictures of them only. */
export function isDrawn(model, name) {
  return name === "raw" && model.patterns;
}

/** Items in the order of `sort`; `ranks` says which place models, prompts and figures have. */
export function sortItems(items, sort, ranks, scores) {
  const name = sort.replace(/^-/, "");
  const sign = sort.startsWith("-") ? -1 : 1;
  const isScore = name.startsWith("score.");
  // Highest scores first; turned round, lowest first; what has no score is last either way.
  const first = isScore
    ? scoreKey(name.slice("score.".length), -sign, scores)
    : (item) => sign * PLACE[name || "model"](ranks, item);
  const usual = usualKey(items, ranks);
  // Each number is worked out once, not at every comparison.
  const keyed = items.map((item) => ({ item, first: first(item), usual: usual(item) }));
  keyed.sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : a.usual - b.usual));
  return keyed.map(({ item }) => item);
}

// What is of a whole layer, prompt or file stands before what is of its parts.
const PLACE = {
  model: (ranks, item) => ranks.model.get(item.model.id),
  layer: (ranks, item) => item.layer ?? -1,
  head: (ranks, item) => item.head ?? -1,
  prompt: (ranks, item) => (item.prompt ? ranks.prompt.get(item.prompt.hash) : -1),
  function: (ranks, item) => ranks.function.get(item.name),
};

/** One number that orders by model, layer, head, prompt, figure. */
function usualKey(items, ranks) {
  let nLayers = 1;
  let nHeads = 1;
  for (const { model } of items) {
    nLayers = Math.max(nLayers, model.n_layers + 1);
    nHeads = Math.max(nHeads, model.n_heads + 1);
  }
  const sizes = [
    ["model", 1],
    ["layer", nLayers],
    ["head", nHeads],
    ["prompt", ranks.prompt.size + 1],
    ["function", ranks.function.size + 1],
  ];
  return (item) => sizes.reduce((key, [property, size]) => key * size + PLACE[property](ranks, item) + 1, 0);
}

function scoreKey(name, sign, scores) {
  return (item) => {
    const value = scores.of(item, name);
    return value === null ? Infinity : sign * value;
  };
}

/** Places of models, prompts and figures in the order in which they are chosen. */
export function ranksOf(shown, functions) {
  const places = (names) => new Map([...new Set(names)].map((name, i) => [name, i]));
  return {
    model: places(shown.map(({ model }) => model.id)),
    prompt: places(shown.flatMap(({ prompts }) => prompts.map((prompt) => prompt.hash))),
    function: places(functions),
  };
}

/**
 * Sections under headings, where a heading says what the order alone does not: several models, or the property sorted by.
 *
 * @returns {{title: string | null, first: number, count: number}[]}
 */
export function sections(items, sort, titles) {
  const property = sort.replace(/^-/, "") || "model";
  const several = new Set(items.map((item) => titles.id(item, property))).size > 1;
  if (property.startsWith("score.") || !several) return [{ title: null, first: 0, count: items.length }];
  const found = [];
  let last = null;
  items.forEach((item, i) => {
    const id = titles.id(item, property);
    if (found.length === 0 || id !== last) found.push({ title: titles.text(item, property), first: i, count: 0 });
    found.at(-1).count += 1;
    last = id;
  });
  return found;
}
