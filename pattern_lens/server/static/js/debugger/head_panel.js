/** One head: its pattern, its scores before the softmax, or the effects of each of its cells. */
import { DEFAULT_MAP, names } from "pattern-lens/colours.js";
import { h, option, replace } from "pattern-lens/dom.js";
import { formatPlace, label, parseLabel } from "pattern-lens/heads.js";
import { Heatmap } from "pattern-lens/heatmap.js";
import { Pattern } from "pattern-lens/pattern.js";
import { number, placesOf } from "pattern-lens/debugger/words.js";
import { Cursor } from "pattern-lens/single/cursor.js";
import { Source, SourceError } from "pattern-lens/source.js";

const HEIGHT = 380;
const VALUES = {
  pattern: ["pattern", "attention probabilities"],
  scores: ["scores", "attention scores before the softmax"],
  total: ["total effect", "estimated total effect of each cell: attention × its gradient"],
  direct: ["direct effect", "direct effect of each cell"],
};
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

export class HeadPanel {
  /** @param {import("./app.js").App} app @param {Function} headLink makes a link to a pattern */
  constructor(app, headLink) {
    this.app = app;
    this.cursor = new Cursor();
    this.cursor.onChange(() => this.point());
    this.heatmap = new Heatmap({ onHover: (cell) => this.cursor.hover(cell), onPick: (cell) => this.pick(cell) });
    this.layer = h("select", { "aria-label": "layer", id: "head-layer", onchange: () => this.change() });
    this.head = h("select", { "aria-label": "head", id: "head-number", onchange: () => this.change() });
    this.link = headLink({}, { class: "button quiet", title: "this pattern on a page of its own" }, "open");
    this.segments = h("span", { class: "segments", role: "group", "aria-label": "values" });
    this.readout = h("p", { class: "head-readout mono", id: "head-readout", role: "status" });
    this.legend = h("p", { class: "muted head-legend" });
    this.note = h("p", { class: "muted", id: "head-note" });
    this.stage = h(
      "div",
      { class: "head-stage", tabindex: "0", role: "group", "aria-label": "pattern: arrows move, Enter chooses" },
      this.heatmap.element,
    );
    this.stage.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "section",
      { class: "debugger-panel head-panel", id: "head", "aria-label": "head" },
      h("header", { class: "panel-head" }, h("h2", null, "Head"), this.layer, this.head, this.link, this.segments),
      this.stage,
      this.readout,
      this.legend,
      this.note,
    );
  }

  /** Fits the head choosers to a model. */
  place({ model }) {
    const numbers = (n, letter) => Array.from({ length: n }, (_, i) => option(i, `${letter}${i}`));
    replace(this.layer, numbers(model.n_layers, "L"));
    replace(this.head, numbers(model.n_heads, "H"));
    this.asked = null;
  }

  change() {
    this.app.go({ shownHead: label(this.layer.value, this.head.value), chosen: this.app.state.chosen ?? this.node?.name ?? null });
  }

  /** Shows the head of the state, else that of the chosen node, else the one that was shown. */
  async show(view, node) {
    const { state } = this.app;
    this.node = node;
    const ofNode = node?.kind === "pair" || node?.kind === "head" ? label(node.layer, node.head) : null;
    const name = this.known(view, state.shownHead) ?? ofNode ?? this.name ?? this.firstHead(view);
    this.element.hidden = name === null;
    if (name === null) return;
    this.name = name;
    const [layer, head] = parseLabel(name);
    this.layer.value = layer;
    this.head.value = head;
    this.writeSegments(view);
    this.link.hidden = !Source.holds(view.model, layer, head);
    this.link.retarget({ head: formatPlace(view.model.id, layer, head) });
    this.cell = name === ofNode ? { query: node.query, key: node.key } : null;
    await this.load(view, { name, layer, head });
  }

  known({ model }, name) {
    const place = name && parseLabel(name);
    return place && place[0] < model.n_layers && place[1] < model.n_heads ? name : null;
  }

  /** Without a head in the table: the first one whose pattern is stored. */
  firstHead({ model, rows }) {
    const row = rows.find(({ kind }) => kind === "pair" || kind === "head");
    if (row) return label(row.layer, row.head);
    return model.layers.length ? label(model.layers[0], 0) : null;
  }

  writeSegments({ answer }) {
    const { values } = this.app.state;
    replace(
      this.segments,
      Object.entries(VALUES).map(([name, [text, title]]) => {
        const isThere = name === "pattern" || (this.app.source.isLive && answer.values.includes(name));
        return h(
          "button",
          {
            type: "button",
            class: "segment",
            "aria-pressed": String(name === values),
            disabled: !isThere && name !== values,
            title: isThere ? title : `${title}: this trace does not hold them`,
            dataset: { values: name },
            onclick: () => this.app.go({ values: name }),
          },
          text,
        );
      }),
    );
  }

  async load(view, { name, layer, head }) {
    const { values } = this.app.state;
    const isOld = this.asked?.answer === view.answer && this.asked.name === name && this.asked.values === values;
    if (isOld) {
      if (this.isShown) this.lockCell();
      return;
    }
    const asked = { answer: view.answer, name, values };
    Object.assign(this, { asked, isShown: false });
    this.element.classList.add("is-old");
    this.note.textContent = "";
    try {
      const found = await this.values(view, { name, layer, head }, values);
      if (this.asked !== asked) return;
      this.draw(view, name, found, values);
      this.isShown = true;
    } catch (error) {
      if (this.asked !== asked) return;
      if (error.name !== "SourceError") console.error(error);
      this.stage.hidden = true;
      this.readout.textContent = "";
      this.legend.textContent = "";
      this.note.textContent = error.message;
    }
    this.element.classList.remove("is-old");
    this.element.dataset.head = name;
    this.element.dataset.values = values;
  }

  /** A pattern as the file holds it where nothing is ablated, else what the trace holds. */
  async values({ model, prompt, answer }, { name, layer, head }, values) {
    const { source, state } = this.app;
    const isStored = values === "pattern" && Source.holds(model, layer, head) && prompt.n_query > 0;
    const isAblated = answer.ablate.length > 0;
    if (isStored && !(isAblated && source.isLive && answer.values.includes("pattern"))) {
      if (isAblated) this.note.textContent = "This is the pattern without the ablations.";
      return source.exact(model.id, prompt.key, name);
    }
    if (!source.isLive) throw new SourceError("This export does not hold these values: the file shows them with pattern-lens serve.");
    const question = state.trace === null ? answer.question : { trace: state.trace };
    const asked = { ...question, ablate: question.ablate?.length ? question.ablate.join("~") : null, values };
    return source.headValues(model.id, prompt.key, name, asked);
  }

  draw({ prompt, model }, name, pattern, values) {
    this.stage.hidden = false;
    this.pattern = pattern;
    const tokens = prompt.tokens.length === pattern.nQuery ? prompt.tokens : undefined;
    const isSigned = values !== "pattern";
    const most = largest(pattern.values);
    const map = names("sequential").includes(this.app.state.cmap) ? this.app.state.cmap : DEFAULT_MAP;
    const drawn = isSigned ? { pattern: diverging(pattern, most), map: "RdBu_r", scale: "linear", middle: 0.5 } : { pattern, map, scale: "linear" };
    this.drawn = { ...drawn, queryTokens: tokens, keyTokens: tokens, name: `${VALUES[values][1]} of ${name} · ${model.name}` };
    this.heatmap.show(this.drawn, this.room());
    this.cursor.resize(pattern);
    const full = `full colour is ${number(isSigned ? most : 1)}`;
    this.legend.textContent = isSigned ? `${VALUES[values][1]}; blue adds, red takes away, ${full}` : `${VALUES[values][1]}; ${full}`;
    this.lockCell();
  }

  lockCell() {
    const { pattern, cell } = this;
    if (cell && cell.key !== null && this.cursor.has(cell)) this.cursor.lock(cell);
    else {
      const query = Math.min(cell?.query ?? this.node?.pos ?? pattern.nQuery - 1, pattern.nQuery - 1);
      this.cursor.isLocked = false;
      this.cursor.set({ query, key: strongest(pattern, query) }, false);
    }
  }

  pick(cell) {
    if (cell.key >= this.pattern.width(cell.query)) return;
    this.app.go({ chosen: `${this.name}@${cell.query},${cell.key}`, shownHead: null });
  }

  point() {
    const { cell } = this.cursor;
    this.heatmap.point(cell);
    if (!cell || !this.pattern) return;
    const value = this.pattern.at(cell.query, cell.key);
    this.readout.textContent = `${placesOf({ kind: "pair", ...cell }, this.app.view.prompt.tokens)}  ${number(Number.isFinite(value) ? value : null)}`;
    Object.assign(this.readout.dataset, { query: cell.query, key: cell.key, value });
  }

  room() {
    return { width: Math.max(200, this.stage.clientWidth), height: HEIGHT };
  }

  layOut() {
    if (!this.stage.hidden && this.drawn) this.heatmap.layOut(this.room());
  }

  onKey(event) {
    const step = STEPS[event.key];
    const { cell } = this.cursor;
    if (!cell || (!step && event.key !== "Enter") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (step) {
      this.cursor.isLocked = false;
      this.cursor.set(this.cursor.inside({ query: cell.query + step[0], key: cell.key + step[1] }), false);
    } else this.pick(cell);
  }
}

/** The key that a query attends to most, its first aside: nearly every head rests there. */
function strongest(pattern, query) {
  let best = 0;
  for (let key = 1; key < pattern.width(query); key++)
    if (best === 0 || Math.abs(pattern.at(query, key)) > Math.abs(pattern.at(query, best))) best = key;
  return best;
}

function largest(values) {
  let most = 0;
  for (const value of values) if (Number.isFinite(value) && Math.abs(value) > most) most = Math.abs(value);
  return most;
}

/** Signed numbers as places on a map whose high end is red: what adds is blue. */
function diverging({ nQuery, nKey, packing, values }, most) {
  const places = Float32Array.from(values, (value) => (Number.isFinite(value) && most ? 0.5 - value / (2 * most) : 0.5));
  return new Pattern({ nQuery, nKey, packing, values: places });
}
