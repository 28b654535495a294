/** What a gallery shows: a state's models, heads, prompts and figures, found in what the source holds. */
import { DEFAULT_MAP } from "pattern-lens/colours.js";
import { parseHeads } from "pattern-lens/heads.js";
import { Source } from "pattern-lens/source.js";

/** In the place of hashes: every prompt. */
export const EVERY = "*";

/**
 * @typedef {object} Prompt
 * @property {string} key
 * @property {string} hash
 * @property {string} text its first 300 characters
 * @property {number} n_tokens
 * @property {string | null} dataset
 */

export class GalleryModel {
  /** Lists of prompts by model: `{prompts, byName, isComplete}`. */
  lists = new Map();

  constructor(source, index, state) {
    this.source = source;
    this.state = state;
    this.setIndex(index);
  }

  setIndex(index) {
    const names = index.models.map((model) => model.name);
    const isOnly = (name) => names.indexOf(name) === names.lastIndexOf(name);
    // A file that grew stays the same object: what is made of its shape stays too, with what is being written there.
    const before = new Map(this.models?.map((model) => [shapeOf(model), model]));
    const titled = index.models.map((model) =>
      Object.assign(before.get(shapeOf(model)) ?? {}, model, {
        title: isOnly(model.name) ? model.name : `${model.name} (${model.file})`,
      }),
    );
    this.index = { ...index, models: titled };
    this.models = titled.filter((model) => !model.error);
    this.ids = new Set(titled.map((model) => model.id));
  }

  /** Chosen models in the order of the index; the first where none is named. */
  chosenModels() {
    const { models } = this.state;
    if (models === null) return this.models.slice(0, 1);
    const chosen = this.models.filter((model) => this.#isNamed(model, models));
    return chosen.length || models.length === 0 ? chosen : this.models.slice(0, 1);
  }

  /** Heads that are chosen and held, and what is wrong with the text that chooses them. */
  headsOf(model) {
    const text = this.headText(model);
    const { heads, error } = parseHeads(text, model.n_layers, model.n_heads);
    return { text, error, heads: heads.filter(([layer, head]) => Source.holds(model, layer, head)) };
  }

  headText(model) {
    const { heads } = this.state;
    return heads[model.id] ?? (this.ids.has(model.name) ? null : heads[model.name]) ?? "x";
  }

  setHeads(model, text) {
    const others = { ...this.state.heads };
    if (!this.ids.has(model.name)) delete others[model.name];
    return { heads: { ...others, [model.id]: text } };
  }

  /** Whether one of the names is the model's: its id or, where that is the id of none, its name. */
  #isNamed(model, names) {
    return names.includes(model.id) || (!this.ids.has(model.name) && names.includes(model.name));
  }

  functions() {
    return this.state.functions ?? ["raw"];
  }

  /**
   * Chosen prompts that a model holds. The first gallery does not wait for ten thousand prompts where the first block
   * holds those that are chosen.
   *
   * @returns {Promise<Prompt[]>}
   */
  async promptsOf(model) {
    const { prompts } = this.state;
    if (prompts === null) return this.firstPrompt(model);
    if (isEvery(prompts)) return (await this.loadList(model)).prompts;
    if (!this.lists.has(model.id)) {
      const known = named(await this.#firstBlock(model));
      if (prompts.every((name) => known.has(name))) return prompts.map((name) => known.get(name));
    }
    const { byName, isComplete } = await this.loadList(model);
    const missing = isComplete ? [] : prompts.filter((name) => !byName.has(name));
    await Promise.all(missing.map((name) => this.#lookUp(model, name)));
    return prompts.map((name) => byName.get(name)).filter(Boolean);
  }

  /** The first prompt of the first chosen model, where this one holds it; else its own first. */
  async firstPrompt(model) {
    const [first] = this.chosenModels();
    const all = await this.#firstBlock(model);
    if (model === first) return all.slice(0, 1);
    const [wanted] = await this.#firstBlock(first);
    const same = all.find((prompt) => prompt.hash === wanted?.hash);
    return same ? [same] : all.slice(0, 1);
  }

  async #firstBlock(model) {
    if (model.n_prompts === 0) return [];
    return (await this.source.json(`api/${encodeURIComponent(model.id)}/prompts/0.json`)).prompts;
  }

  /** All prompts of a model (the first 20,000), named by hash and key; `onBlock` as they come. */
  async loadList(model, onBlock = () => {}) {
    if (this.lists.has(model.id)) return this.lists.get(model.id);
    const list = { prompts: [], byName: new Map(), isComplete: true };
    if (model.n_prompts > 0) {
      await this.source.prompts(model.id, ({ prompts, n_prompts: n }) => {
        for (const prompt of prompts.slice(list.prompts.length)) this.#add(list, prompt);
        list.isComplete = prompts.length >= n;
        onBlock(list);
      });
    }
    this.lists.set(model.id, list);
    return list;
  }

  /** Prompts found by a server beyond the list join it, so that they can be chosen. */
  addFound(model, prompts) {
    const list = this.lists.get(model.id);
    for (const prompt of prompts) if (list && !list.byName.has(prompt.hash)) this.#name(list, prompt);
  }

  /** A prompt beyond the end of the list. */
  async #lookUp(model, name) {
    if (!this.source.isLive) return;
    const { prompts } = await this.source.search(model.id, name);
    this.addFound(model, prompts);
  }

  #add(list, prompt) {
    list.prompts.push(prompt);
    this.#name(list, prompt);
  }

  #name(list, prompt) {
    for (const name of namesOf(prompt)) list.byName.set(name, prompt);
  }

  /**
   * Leaves out what the state names and nobody holds. Where nothing is left, the default takes its place.
   *
   * @param {{functions: Set<string>, scores: string[], colours: string[]}} known
   * @returns {string[]} a sentence on each
   */
  leaveOutUnknown({ functions, scores, colours }) {
    return [
      ...this.#leaveOutModels(),
      ...this.#leaveOutFunctions(functions),
      ...this.#leaveOutPrompts(),
      ...this.#leaveOutLooks(scores, colours),
    ];
  }

  #leaveOutLooks(scores, colours) {
    const { state } = this;
    const notes = [];
    const score = /^-?score\.(.+)$/s.exec(state.sort)?.[1];
    if (score !== undefined && !scores.includes(score)) {
      notes.push(`No chosen model has a score “${score}” to sort by; it was left out.`);
      state.sort = "";
    }
    if (!colours.includes(state.cmap)) {
      notes.push(`There is no colour map “${state.cmap}”; it was left out.`);
      state.cmap = DEFAULT_MAP;
    }
    return notes;
  }

  #leaveOutModels() {
    const { state, index } = this;
    const notes = [];
    const isHere = (name) => this.models.some((model) => this.#isNamed(model, [name]));
    for (const name of (state.models ?? []).filter((one) => !isHere(one))) {
      const broken = index.models.find((model) => this.#isNamed(model, [name]));
      notes.push(
        broken ? `${broken.file} cannot be shown: ${broken.error}` : `There is no model “${name}” here; it was left out.`,
      );
    }
    const foreign = Object.keys(state.heads).filter((name) => !isHere(name));
    for (const name of foreign) notes.push(`Heads were chosen of a model “${name}”, which is not here; they were left out.`);
    state.models = kept(state.models, isHere);
    state.heads = Object.fromEntries(Object.entries(state.heads).filter(([name]) => !foreign.includes(name)));
    return notes;
  }

  #leaveOutFunctions(known) {
    const unknown = (this.state.functions ?? []).filter((name) => !known.has(name));
    this.state.functions = kept(this.state.functions, (name) => known.has(name));
    return unknown.map((name) => `There is no figure “${name}” of the chosen models; it was left out.`);
  }

  #leaveOutPrompts() {
    const lists = this.chosenModels().map((model) => this.lists.get(model.id));
    const isHere = (name) => name === EVERY || lists.some((list) => !list || list.byName.has(name));
    const unknown = (this.state.prompts ?? []).filter((name) => !isHere(name));
    this.state.prompts = kept(this.state.prompts, isHere);
    return unknown.length
      ? [`No chosen model has ${unknown.length === 1 ? "the prompt" : "the prompts"} ${quoted(unknown)}; left out.`]
      : [];
  }
}

function shapeOf({ id, file_id: fileId, error, n_layers: nLayers, n_heads: nHeads, layers, heads }) {
  return JSON.stringify([id, fileId, error, nLayers, nHeads, layers, heads]);
}

/** Whether every prompt is chosen, those that are still to come too. */
export function isEvery(prompts) {
  return prompts?.length === 1 && prompts[0] === EVERY;
}

export function promptName(prompt) {
  return prompt.hash.includes("~") ? prompt.key.replace(/^~/, "") : prompt.hash;
}

/** What a prompt may be called in an address of this application. */
function namesOf(prompt) {
  // An address joins hashes by "~", with which the keys of unsafe hashes begin.
  return [prompt.hash, prompt.key.replace(/^~/, "")];
}

function named(prompts) {
  return new Map(prompts.flatMap((prompt) => namesOf(prompt).map((name) => [name, prompt])));
}

/** Names that are known; null, the default, where none of some is. */
function kept(names, isKnown) {
  if (names === null || names.length === 0) return names;
  const known = names.filter(isKnown);
  return known.length ? known : null;
}

function quoted(names) {
  const first = names
    .slice(0, 3)
    .map((name) => `“${name}”`)
    .join(", ");
  return names.length > 3 ? `${first} and ${names.length - 3} more` : first;
}
