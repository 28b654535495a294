/** The residual view as a whole: what is asked for, what is shown of it, and what the address says of both. */
import { showNotices } from "pattern-lens/notices.js";
import { resolvePrompt } from "pattern-lens/single/resolve.js";
import { address, pushState, replaceState } from "pattern-lens/state.js";

export const UNITS = ["component", "layer", "head", "neuron"];

export class App {
  /**
   * @param {import("pattern-lens/source.js").Source} source
   * @param {object} state of state.js; kept up to date in place
   * @param {{show: (view: object) => Promise<void>, fail: (message: string, view: object | null) => void}} page
   */
  constructor(source, state, page) {
    this.source = source;
    this.state = state;
    this.page = page;
    this.view = null;
    this.turn = 0;
  }

  stop() {
    this.turn++;
    showNotices("residual", []);
  }

  /** Address of this view after changes. */
  address(changes) {
    return address("residual", { ...this.state, ...changes });
  }

  /** Changes what is shown; another prompt or model is a new place in the history. */
  go(changes) {
    const isPlace = "prompt" in changes || "model" in changes;
    if (isPlace) changes = { position: null, ...changes };
    Object.assign(this.state, changes, { notes: [] });
    (isPlace ? pushState : replaceState)(this.state);
    return isPlace ? this.load() : this.show();
  }

  /** Loads what the state names and shows it. */
  async load() {
    const turn = ++this.turn;
    delete document.documentElement.dataset.ready;
    try {
      const found = await this.find();
      if (turn !== this.turn) return;
      showNotices("residual", found.notes);
      if (found.why) {
        this.give(found);
        return;
      }
      this.found = found;
      Object.assign(this.state, { model: found.model.id, prompt: found.prompt.hash });
    } catch (error) {
      if (turn === this.turn) this.failed(error);
      return;
    }
    await this.show();
  }

  failed(error) {
    this.page.fail(error.message, this.view);
    document.documentElement.dataset.ready = "residual";
    if (error.name !== "SourceError") console.error(error);
  }

  async find() {
    const { models } = await this.source.index();
    const notes = [];
    const model = this.modelOf(models, notes);
    if (!model) return { why: models.map(({ file, error }) => `${file}: ${error}`).join(" ") || "No file is open.", notes };
    const [{ prompt, notes: promptNotes }, about] = await Promise.all([
      resolvePrompt(this.source, model, this.state.prompt),
      this.source.residual(model.id),
    ]);
    notes.push(...promptNotes);
    if (!prompt) return { why: `${model.file} holds no prompts yet.`, notes };
    return { models, model, prompt, about, notes, why: about.error };
  }

  modelOf(models, notes) {
    const usable = models.filter((model) => !model.error);
    const wanted = this.state.model;
    const named = usable.find(({ id, name }) => id === wanted || name === wanted);
    const first = usable.find((model) => model.residual) ?? usable[0];
    if (wanted && !named && first) notes.push(`There is no model “${wanted}” here; this is ${first.id}.`);
    return named ?? first;
  }

  give({ why, prompt, model, models }) {
    this.found = null;
    this.view = prompt ? { model, prompt, models } : null;
    this.page.fail(why, this.view);
    document.documentElement.dataset.ready = "residual";
  }

  /** Shows what is found, at the position and stream of the state. */
  async show() {
    const { found, state } = this;
    if (!found) return;
    const turn = ++this.turn;
    const nPos = found.prompt.n_ctx;
    const { streams } = found.about;
    if (state.position !== null && state.position >= nPos) {
      showNotices("residual", [`The prompt has no position ${state.position}: this is its last, ${nPos - 1}.`]);
      state.position = null;
    }
    const position = state.position ?? nPos - 1;
    const stream = streams.includes(state.stream) ? state.stream : streams.at(-1);
    this.view = { ...found, nPos, position, stream, unit: this.unit(found.about), isLive: this.source.isLive };
    replaceState(state);
    try {
      await this.page.show(this.view, () => turn === this.turn);
    } catch (error) {
      if (turn === this.turn) this.failed(error);
      return;
    }
    if (turn !== this.turn) return;
    performance.mark("pattern-lens:residual");
    document.documentElement.dataset.ready = "residual";
  }

  unit({ units }) {
    return units[this.state.unit] === null ? this.state.unit : (UNITS.find((unit) => units[unit] === null) ?? "head");
  }

  /** What is asked of the server for the tokens that were chosen; the model's own first choice where none was. */
  async question(view) {
    const { answer, distractor } = this.state;
    if (answer) return { position: view.position, answer, distractor };
    const top = await this.source.lensCell(view.model.id, view.prompt.key, view.about, view.position, view.about.streams.at(-1));
    return { position: view.position, answer: `~${top.tokens[0].id}`, distractor };
  }
}
