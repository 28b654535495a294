/** The debugger as a whole: what is asked for, what is shown of it, and what the address says of both. */
import { loadColours } from "pattern-lens/colours.js";
import { showNotices } from "pattern-lens/notices.js";
import { parseNode } from "pattern-lens/debugger/words.js";
import { resolvePrompt } from "pattern-lens/single/resolve.js";
import { address, pushState, replaceState } from "pattern-lens/state.js";

const LIVE_ONLY =
  "New traces are computed by a server that has the model: open the file with pattern-lens serve FILE --model NAME.";
/** What another prompt or model has of its own. */
const OF_PROMPT = { target: null, distractor: null, position: null, ablate: [], node: null, chosen: null };
/** Changes that lead to another trace. */
const QUESTION = ["trace", "target", "distractor", "position", "ablate", "node"];

export class App {
  /**
   * @param {import("pattern-lens/source.js").Source} source
   * @param {object} state of state.js; kept up to date in place
   * @param {{place: Function, wait: Function, show: Function, choose: Function, refuse: Function, fail: Function, opened: Promise}} page
   */
  constructor(source, state, page) {
    this.source = source;
    this.state = state;
    this.page = page;
    this.view = null;
    this.turn = 0;
    this.running = null;
  }

  stop() {
    this.turn++;
    showNotices("debugger", []);
  }

  /** Address of this view after changes. */
  address(changes) {
    return address("debugger", { ...this.state, ...changes });
  }

  /** Changes what is shown; another prompt, and another trace, is a new place in the history. */
  go(changes) {
    const isPlace = "prompt" in changes || "model" in changes;
    if (isPlace) changes = { ...OF_PROMPT, ...changes };
    const isQuestion = isPlace || QUESTION.some((name) => name in changes);
    Object.assign(this.state, changes, { notes: [] });
    (isQuestion ? pushState : replaceState)(this.state);
    if (isPlace) return this.load();
    return isQuestion ? this.ask() : this.pick();
  }

  /** Changes of the state that ask what the present trace asks, and something else: a stored one becomes a new one. */
  asked(changes) {
    const { question } = this.view?.answer ?? {};
    return this.state.trace === null ? changes : { trace: null, ...OF_PROMPT, chosen: this.state.chosen, ...question, ...changes };
  }

  /** Ablates what a label names, or lets it be; what is chosen stays chosen. */
  toggle(label, chosen = this.state.chosen) {
    const now = this.ablations;
    const ablate = now.includes(label) ? now.filter((one) => one !== label) : [...now, label];
    return this.go(this.asked({ ablate, chosen }));
  }

  /** Ablations that count now, those of a stored trace too. */
  get ablations() {
    return this.state.trace === null ? this.state.ablate : (this.view?.answer?.ablate ?? []);
  }

  get traced() {
    return this.state.trace === null ? this.state.node : (this.view?.answer?.node ?? null);
  }

  /** Why nothing new can be asked here; null where it can. */
  whyNot() {
    const { whyNot } = this.found ?? {};
    if (whyNot) return whyNot;
    const isClosed = this.state.trace !== null && this.view?.answer && !this.view.answer.question;
    return isClosed ? "This objective cannot be asked here: choose a target token to ask another." : null;
  }

  /** Loads what the state names and shows it. */
  async load() {
    const turn = ++this.turn;
    delete document.documentElement.dataset.ready;
    try {
      const found = await this.find();
      if (turn !== this.turn) return;
      showNotices("debugger", found.notes);
      this.found = found.why ? null : found;
      this.view = found.prompt ? found : null;
      if (found.why) {
        this.failed({ name: "SourceError", message: found.why });
        return;
      }
      Object.assign(this.state, { model: found.model.id, prompt: found.prompt.hash });
      this.page.place(found);
    } catch (error) {
      if (turn === this.turn) this.failed(error);
      return;
    }
    await this.ask();
  }

  failed(error) {
    this.page.fail(error.message, this.view);
    this.announce();
    if (error.name !== "SourceError") console.error(error);
  }

  async find() {
    const [{ models }] = await Promise.all([this.source.index(), loadColours(this.source)]);
    const notes = [];
    const model = this.modelOf(models, notes);
    if (!model) return { why: models.map(({ file, error }) => `${file}: ${error}`).join(" ") || "No file is open.", notes };
    const [{ prompt, notes: more }, tracing] = await Promise.all([
      resolvePrompt(this.source, model, this.state.prompt),
      this.source.isLive ? this.source.tracing(model.id) : { error: LIVE_ONLY },
    ]);
    notes.push(...more);
    if (!prompt) return { why: `${model.file} holds no prompts yet.`, notes };
    const { traces } = model.traces.length ? await this.source.traces(model.id, prompt.key) : { traces: [] };
    const isNothing = tracing.error && !traces.length;
    const why = isNothing ? `${model.file} holds no traces of this prompt. ${tracing.error}` : null;
    return { models, model, prompt, traces, whyNot: tracing.error, notes, why };
  }

  modelOf(models, notes) {
    const usable = models.filter((model) => !model.error);
    const wanted = this.state.model;
    const named = usable.find(({ id, name }) => id === wanted || name === wanted);
    const first = usable.find((model) => model.traces.length) ?? usable.find((model) => model.computes) ?? usable[0];
    if (wanted && !named && first) notes.push(`There is no model “${wanted}” here; this is ${first.id}.`);
    return named ?? first;
  }

  /** Gets the trace that the state asks for; an answer that comes after another question is dropped. */
  async ask() {
    const { found } = this;
    if (!found) return;
    const turn = ++this.turn;
    const isNow = () => turn === this.turn;
    delete document.documentElement.dataset.ready;
    this.decide();
    this.page.wait(this.state.trace === null);
    try {
      const answer = await this.answer(isNow);
      if (!isNow()) return;
      this.take(answer);
    } catch (error) {
      if (!isNow()) return;
      if (error.name !== "SourceError") console.error(error);
      this.view = { ...found, answer: null };
      this.page.refuse(error.message);
      this.announce();
    }
  }

  /** Which of the stored traces, or whether a new one: what the address leaves open, and what cannot be. */
  decide() {
    const { found, state } = this;
    const names = found.traces.map(({ name }) => name);
    const isNew = state.target !== null || state.node !== null || state.ablate.length > 0;
    const isElsewhere = state.position !== null && !found.whyNot;
    const notes = [];
    if (state.trace !== null && !names.includes(state.trace)) {
      notes.push(`There is no trace “${state.trace}” of this prompt; there ${names.length ? `is ${names.join(", ")}` : "is none"}.`);
      state.trace = null;
    }
    if (state.trace === null && names.length && (found.whyNot || !(isNew || isElsewhere))) {
      if (isNew) notes.push(`What the address asks for is not stored. ${found.whyNot}`);
      [state.trace] = names;
    }
    if (state.trace !== null) Object.assign(state, { ...OF_PROMPT, chosen: state.chosen });
    if (notes.length) showNotices("debugger", notes);
    replaceState(state);
  }

  /** One question at a time: the model answers one, and of those that wait only the last is still wanted. */
  async answer(isNow) {
    const { model, prompt } = this.found;
    if (this.state.trace !== null) return this.source.trace(model.id, prompt.key, this.state.trace);
    while (this.running) {
      await this.running.catch(() => {});
      if (!isNow()) return null;
    }
    this.running = this.source.newTrace(model.id, prompt.key, this.question());
    try {
      return await this.running;
    } finally {
      this.running = null;
    }
  }

  /** What is asked of the server. */
  question() {
    const { target, distractor, position, ablate, node } = this.state;
    return { target, distractor, position, ablate: ablate.length ? ablate.join("~") : null, node };
  }

  take(answer) {
    const { state } = this;
    // The address names the token that the model chose, so that it says the same tomorrow.
    if (state.trace === null && state.target === null) state.target = answer.question.target;
    this.view = { ...this.found, answer, rows: rowsOf(answer) };
    this.page.show(this.view);
    this.pick();
  }

  /** Shows the chosen node; the first of the table where none is. */
  pick() {
    if (!this.view?.answer) return;
    replaceState(this.state);
    this.page.choose(this.view);
    const { turn } = this;
    this.page.opened.then(() => turn === this.turn && this.announce());
  }

  /** The chosen node with its measures, which are known of what the table holds. */
  node(name) {
    return this.view.rows.find((row) => row.name === name) ?? parseNode(name);
  }

  announce() {
    performance.mark("pattern-lens:debugger");
    document.documentElement.dataset.ready = "debugger";
  }
}

/** Rows of the table from the columns of an answer. */
function rowsOf({ nodes }) {
  const names = Object.keys(nodes);
  return nodes.name.map((_, i) => Object.fromEntries(names.map((name) => [name, nodes[name][i]])));
}
