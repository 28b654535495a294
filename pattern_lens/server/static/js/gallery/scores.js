/** Stored scores of heads: means over prompts, and the numbers of each prompt where few prompts are shown. */

/** With more prompts than this, the mean over all prompts stands for each one's number. */
export const MAX_PROMPTS = 64;

export class Scores {
  #means = new Map();
  #ofPrompts = new Map();

  constructor(source) {
    this.source = source;
  }

  forget() {
    this.#means.clear();
    this.#ofPrompts.clear();
  }

  /** Loads the means of models. */
  async load(models) {
    await Promise.all(
      models.map(async (model) => {
        if (this.#means.has(model.id)) return;
        const { scores } = await this.source.scores(model.id);
        this.#means.set(model.id, new Map(scores.map((score) => [score.name, score])));
      }),
    );
  }

  /** Loads the numbers of the prompts shown, unless they are more than `most`. */
  async loadPrompts(shown, most = MAX_PROMPTS) {
    const all = shown.flatMap(({ model, prompts }) => prompts.map((prompt) => [model.id, prompt.key]));
    if (all.length > most) {
      this.#ofPrompts.clear();
      return;
    }
    const found = await Promise.all(
      all.map(async ([id, key]) => [`${id}/${key}`, (await this.source.promptScores(id, key)).scores]),
    );
    this.#ofPrompts = new Map(found);
  }

  /** Scores that any of the models has. @returns {{name: string, long_name: string, units: string | null}[]} */
  known(models) {
    return [...new Map(models.flatMap((model) => [...(this.#means.get(model.id) ?? [])])).values()];
  }

  /** Mean over prompts, dims (layer, head); null where a model has none. */
  mean(model, name) {
    return this.#means.get(model.id)?.get(name)?.mean ?? null;
  }

  /** Score of a head for a prompt, or over prompts where it is not known; null where there is none. */
  of(item, name) {
    if (item.head === null) return null;
    const values = this.#ofPrompts.get(`${item.model.id}/${item.prompt?.key}`)?.[name] ?? this.mean(item.model, name);
    return values?.[item.layer]?.[item.head] ?? null;
  }

  /** Whether what `of` says is that prompt's own number. */
  isOfPrompt(item, name) {
    return this.#ofPrompts.get(`${item.model.id}/${item.prompt?.key}`)?.[name] !== undefined;
  }
}

/** The heads with the highest scores, highest first. */
export function highest(matrix, heads, count) {
  const value = ([layer, head]) => matrix?.[layer]?.[head] ?? null;
  return heads
    .filter((head) => value(head) !== null)
    .sort((a, b) => value(b) - value(a))
    .slice(0, count);
}

/** A score as read: three decimals, or what is left of a very small one. */
export function scoreText(value) {
  if (value === null || value === undefined) return "none";
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3);
}
