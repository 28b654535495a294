/** The pictures that are chosen, as far as they can be had. */
import { MAX_PROMPTS } from "pattern-lens/gallery/scores.js";
import { isDrawn, listItems, ranksOf } from "pattern-lens/gallery/items.js";

export class Collection {
  /** @type {{model: object, prompts: object[], heads: [number, number][]}[]} by chosen model */
  shown = [];
  /** @type {import("./items.js").Item[]} */
  items = [];
  /** How many there are, listed or not. */
  n = 0;
  ranks = ranksOf([], []);

  constructor(source, model, scores) {
    Object.assign(this, { source, model, scores });
  }

  get isByScore() {
    return /^-?score\./.test(this.model.state.sort);
  }

  /** Whether numbers of so many prompts are not fetched, and means stand for them. */
  get isByMean() {
    return this.isByScore && this.shown.reduce((n, { prompts }) => n + prompts.length, 0) > MAX_PROMPTS;
  }

  async collect() {
    const { model } = this;
    const chosen = model.chosenModels();
    const functions = model.functions();
    const shown = await Promise.all(
      chosen.map(async (one) => ({ model: one, prompts: await model.promptsOf(one), heads: model.headsOf(one).heads })),
    );
    const figures = await this.#figures(shown, functions);
    if (this.isByScore) await Promise.all([this.scores.load(chosen), this.scores.loadPrompts(shown)]);
    // Nothing is changed before all of it is there: who chose something else meanwhile sees whole galleries only.
    const { items, n } = listItems(shown, functions, figures);
    Object.assign(this, { shown, items, n, ranks: ranksOf(shown, functions) });
  }

  clear() {
    Object.assign(this, { shown: [], items: [], n: 0 });
  }

  /** Lists of stored figures by model and prompt, where figures are chosen that are not drawn. */
  async #figures(shown, functions) {
    const wanted = shown.filter(({ model }) => functions.some((name) => !isDrawn(model, name)));
    const lists = wanted.flatMap(({ model, prompts }) =>
      [null, ...prompts].map(async (prompt) => {
        const { figures } = await this.source.figures(model.id, prompt?.key ?? null);
        return [`${model.id}/${prompt?.key ?? ""}`, figures];
      }),
    );
    return new Map(await Promise.all(lists));
  }
}
