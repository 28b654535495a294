/** What an address names, in the files there are: what is not there gives way to the nearest that is, and a sentence says so. */
import { label, parseLabel, parsePlace } from "pattern-lens/heads.js";

/** Every head that can be shown of a model, by layer in the order stored. */
export function headsOf(model) {
  const all = model.layers.flatMap((layer) => Array.from({ length: model.n_heads }, (_, head) => ({ layer, head })));
  if (!model.heads) return all;
  const held = new Set(model.heads);
  return all.filter(({ layer, head }) => held.has(label(layer, head)));
}

/** Whether a model holds this head or mean; an export holds the means of the layers that it has heads of. */
export function hasHead(model, layer, head) {
  if (layer === "x") return head === "x";
  if (!model.layers.includes(layer)) return false;
  if (head === "x") return !model.heads || model.heads.some((name) => parseLabel(name)?.[0] === layer);
  return model.heads ? model.heads.includes(label(layer, head)) : head < model.n_heads;
}

/** The means over heads that a model can show of a layer: that of the layer and that of all. */
export function meansOf(model, layer) {
  const found = [["x", "x"]];
  if (layer !== "x") found.unshift([layer, "x"]);
  return found.filter(([l, head]) => hasHead(model, l, head)).map(([l, head]) => ({ layer: l, head }));
}

function nearest(numbers, wanted) {
  return numbers.reduce((best, number) => (Math.abs(number - wanted) < Math.abs(best - wanted) ? number : best));
}

/** The head next to one that is not there: in the nearest layer the nearest head. */
export function nearestHead(model, { layer, head }) {
  const heads = headsOf(model);
  const inLayer = nearest(
    heads.map((each) => each.layer),
    layer === "x" ? heads[0].layer : layer,
  );
  const candidates = heads.filter((each) => each.layer === inLayer).map((each) => each.head);
  return { layer: inLayer, head: nearest(candidates, head === "x" ? candidates[0] : head) };
}

function usable(models) {
  return models.filter((model) => !model.error && model.patterns && headsOf(model).length);
}

/** Why nothing of these files can be shown here. */
export function whyNothing(models) {
  if (!models.length) return "No file is open.";
  const reasons = models.map((model) => {
    if (model.error) return `${model.file}: ${model.error}`;
    return `${model.file} holds no attention patterns.`;
  });
  return reasons.join(" ");
}

/**
 * Model and head that a state names.
 * @param {object[]} models of api/index.json
 * @param {string | null | undefined} text `{model}.L3.H5`
 * @returns {{model: object | null, layer: number | "x", head: number | "x", notes: string[]}}
 */
export function resolveHead(models, text) {
  const shown = usable(models);
  if (!shown.length) return { model: null, layer: 0, head: 0, notes: [] };
  if (!text) return { model: shown[0], ...nearestHead(shown[0], { layer: 0, head: 0 }), notes: [] };
  const place = parsePlace(text);
  if (!place) {
    const first = nearestHead(shown[0], { layer: 0, head: 0 });
    return {
      model: shown[0],
      ...first,
      notes: [`“${text}” names no head; write it as ${shown[0].id}.L3.H5. This is ${label(first.layer, first.head)}.`],
    };
  }
  return inModel(models, shown, place);
}

function inModel(models, shown, place) {
  const notes = [];
  let model = shown.find((each) => each.id === place.model) ?? shown.find((each) => each.name === place.model);
  if (!model) {
    const blank = models.find((each) => each.id === place.model);
    notes.push(
      blank
        ? `${whyNothing([blank])} This is ${shown[0].id}.`
        : `There is no model “${place.model}” here; this is ${shown[0].id}.`,
    );
    [model] = shown;
  }
  if (hasHead(model, place.layer, place.head)) return { model, layer: place.layer, head: place.head, notes };
  const near = nearestHead(model, place);
  notes.push(
    `${model.id} has no head ${label(place.layer, place.head)} here (${extent(model)}); this is ${label(near.layer, near.head)}.`,
  );
  return { model, ...near, notes };
}

function extent(model) {
  if (model.heads) return `it holds ${model.heads.length} chosen heads`;
  const { layers } = model;
  const isWhole = layers.at(-1) - layers[0] === layers.length - 1;
  return `layers ${isWhole ? `${layers[0]}–${layers.at(-1)}` : layers.join(", ")}, heads 0–${model.n_heads - 1}`;
}

/** Whether a hash serves as the prompt's key in addresses; one with other characters has a digest for a key. */
export function isKey(hash) {
  return /^~?[A-Za-z0-9_-]{1,80}$/.test(hash ?? "");
}

/**
 * A prompt by key or hash, or the first one.
 * @returns {Promise<{prompt: object | null, notes: string[]}>}
 */
export async function resolvePrompt(source, model, wanted) {
  if (wanted) {
    const prompt = isKey(wanted) ? await orNull(source.prompt(model.id, wanted)) : await byHash(source, model, wanted);
    if (prompt) return { prompt, notes: [] };
  }
  const prompt = await firstPrompt(source, model);
  const notes = wanted && prompt ? [`${model.id} has no prompt “${wanted}”; this is its first.`] : [];
  return { prompt, notes };
}

async function orNull(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.status !== 404) throw error;
    return null;
  }
}

async function byHash(source, model, wanted) {
  const { prompts } = await source.prompts(model.id);
  const found = prompts.find(({ hash }) => hash === wanted);
  return found ? source.prompt(model.id, found.key) : null;
}

async function firstPrompt(source, model) {
  if (!model.n_prompts) return null;
  const block = await source.json(`api/${encodeURIComponent(model.id)}/prompts/0.json`);
  const first = block.prompts[0];
  return first ? source.prompt(model.id, first.key) : null;
}
