/** A layer × head map in which heads are chosen: click, drag, labels of layers and heads, keyboard. */
import { css } from "pattern-lens/colours.js";
import { h, replace } from "pattern-lens/dom.js";
import { label } from "pattern-lens/heads.js";

const WIDTH = 332;
const MIN_CELL = 9;
const MAX_CELL = 36;
const LABEL_STEPS = [1, 2, 5, 10, 20, 50];

export class HeadMap {
  #cells = new Map();
  #chosen = new Set();
  #drag = null;

  /**
   * @param {object} model
   * @param {number[]} layers
   * @param {(layer: number, head: number) => boolean} holds
   * @param {{onChange: (heads: [number, number][]) => void, onPoint: (layer: number | null, head: number | null) => void}} listeners
   */
  constructor(model, layers, holds, { onChange, onPoint }) {
    Object.assign(this, { model, layers, holds, onChange, onPoint });
    const cell = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor((WIDTH - 30) / model.n_heads)));
    this.element = h("div", {
      class: "map",
      role: "grid",
      "aria-multiselectable": "true",
      "aria-label": `Heads of ${model.title}`,
      style: { "--cell": `${cell}px`, "--row": `${Math.min(cell, 24)}px`, "--heads": model.n_heads },
      onpointerdown: (event) => this.#down(event),
      onpointermove: (event) => this.#move(event),
      onpointerup: (event) => this.#up(event),
      onpointercancel: () => this.#cancel(),
      onpointerleave: () => onPoint(null, null),
      onkeydown: (event) => this.#key(event),
      onfocusin: (event) => this.#focused(event),
    });
    this.#build(cell);
  }

  /** @param {[number, number][]} heads chosen @param {{value: Function, colour: Function, text: Function} | null} score what colours the cells */
  update(heads, score) {
    this.#chosen = new Set(heads.map(([layer, head]) => label(layer, head)));
    this.element.classList.toggle("is-all", this.#chosen.size === this.#cells.size);
    this.element.classList.toggle("has-score", score !== null);
    for (const [name, { element, layer, head }] of this.#cells) {
      element.style.background = score ? css(score.colour(layer, head)) : "";
      element.setAttribute("aria-selected", String(this.#chosen.has(name)));
      element.setAttribute("aria-label", score ? `${name}, ${score.text(layer, head)}` : name);
    }
  }

  #build(cell) {
    const { n_heads: nHeads } = this.model;
    const heads = Array.from({ length: nHeads }, (_, head) => head);
    const every = LABEL_STEPS.find((step) => step * cell >= 22) ?? 100;
    replace(
      this.element,
      h(
        "div",
        { class: "map-row", role: "row" },
        h(
          "button",
          { class: "map-label", dataset: { all: "" }, tabindex: "-1", title: "All heads", "aria-label": "All heads" },
          "all",
        ),
        heads.map((head) =>
          h(
            "button",
            {
              class: "map-label",
              dataset: { head },
              tabindex: "-1",
              title: `H${head} of every layer`,
              "aria-label": `H${head} of every layer`,
            },
            head % every ? "" : `H${head}`,
          ),
        ),
      ),
      this.layers.map((layer) =>
        h(
          "div",
          { class: "map-row", role: "row" },
          h(
            "button",
            {
              class: "map-label",
              dataset: { layer },
              tabindex: "-1",
              title: `All heads of layer ${layer}`,
              "aria-label": `All heads of layer ${layer}`,
            },
            `L${layer}`,
          ),
          heads.map((head) => this.#cell(layer, head)),
        ),
      ),
    );
  }

  #cell(layer, head) {
    if (!this.holds(layer, head)) return h("span", { class: "map-none", role: "gridcell", "aria-disabled": "true" });
    const name = label(layer, head);
    const element = h("span", {
      class: "map-cell",
      role: "gridcell",
      dataset: { cell: name },
      tabindex: this.#cells.size ? "-1" : "0",
    });
    this.#cells.set(name, { element, layer, head });
    return element;
  }

  #at(event) {
    const target = document.elementFromPoint(event.clientX, event.clientY);
    return this.element.contains(target) ? (this.#cells.get(target.dataset.cell) ?? null) : null;
  }

  #down(event) {
    if (event.button !== 0) return;
    const button = event.target.closest(".map-label");
    const cell = this.#cells.get(event.target.dataset.cell);
    if (button) this.#choose(this.#ofLabel(button), modeOf(event));
    else if (cell) {
      this.#drag = { start: cell, mode: modeOf(event), before: new Set(this.#chosen) };
      this.element.setPointerCapture(event.pointerId);
      this.#preview(cell);
    }
  }

  #move(event) {
    const cell = this.#at(event);
    this.onPoint(cell?.layer ?? null, cell?.head ?? null);
    if (this.#drag && cell) this.#preview(cell);
  }

  #up(event) {
    if (!this.#drag) return;
    const { start, mode } = this.#drag;
    const end = this.#at(event) ?? this.#drag.end;
    this.#drag = null;
    this.element.classList.remove("is-dragged");
    this.#choose(this.#rectangle(start, end), mode);
  }

  #cancel() {
    if (this.#drag) this.#mark(this.#drag.before);
    this.#drag = null;
    this.element.classList.remove("is-dragged");
  }

  #preview(end) {
    this.#drag.end = end;
    this.element.classList.add("is-dragged");
    this.#mark(combined(this.#drag.before, this.#rectangle(this.#drag.start, end), this.#drag.mode));
  }

  #mark(chosen) {
    for (const [name, { element }] of this.#cells) element.setAttribute("aria-selected", String(chosen.has(name)));
  }

  #rectangle(a, b) {
    const within = (value, x, y) => value >= Math.min(x, y) && value <= Math.max(x, y);
    return [...this.#cells]
      .filter(([, one]) => within(one.layer, a.layer, b.layer) && within(one.head, a.head, b.head))
      .map(([name]) => name);
  }

  #ofLabel({ dataset }) {
    const isIn =
      "all" in dataset
        ? () => true
        : dataset.layer !== undefined
          ? (one) => one.layer === Number(dataset.layer)
          : (one) => one.head === Number(dataset.head);
    return [...this.#cells].filter(([, one]) => isIn(one)).map(([name]) => name);
  }

  #choose(names, mode) {
    const chosen = combined(this.#chosen, names, mode);
    this.onChange([...this.#cells].filter(([name]) => chosen.has(name)).map(([, { layer, head }]) => [layer, head]));
  }

  #focused(event) {
    const cell = this.#cells.get(event.target.dataset.cell);
    if (!cell) return;
    for (const { element } of this.#cells.values()) if (element.tabIndex === 0) element.tabIndex = -1;
    cell.element.tabIndex = 0;
    this.onPoint(cell.layer, cell.head);
  }

  #key(event) {
    const cell = this.#cells.get(event.target.dataset.cell);
    if (!cell) {
      if ((event.key === "Enter" || event.key === " ") && event.target.matches(".map-label"))
        this.#choose(this.#ofLabel(event.target), modeOf(event));
      return;
    }
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const name = label(cell.layer, cell.head);
    if (event.key === " ") this.#choose([name], this.#chosen.has(name) ? "remove" : "add");
    else if (event.key === "Enter") this.#choose([name], "only");
    else if (steps[event.key]) this.#step(cell, ...steps[event.key]);
    else return;
    event.preventDefault();
  }

  /** To the next head that exists in this direction. */
  #step(cell, layers, heads) {
    let row = this.layers.indexOf(cell.layer) + layers;
    let head = cell.head + heads;
    const isIn = () => row >= 0 && row < this.layers.length && head >= 0 && head < this.model.n_heads;
    const next = () => this.#cells.get(label(this.layers[row], head));
    while (isIn() && !next()) {
      row += layers;
      head += heads;
    }
    if (isIn()) next().element.focus();
  }
}

function modeOf(event) {
  if (event.ctrlKey || event.metaKey) return "remove";
  return event.shiftKey ? "add" : "only";
}

function combined(before, names, mode) {
  if (mode === "only") return new Set(names);
  const found = new Set(before);
  for (const name of names) {
    if (mode === "add") found.add(name);
    else found.delete(name);
  }
  return found;
}
