/** What each head adds, layer × head, diverging from 0; a head leads to its pattern. */
import { h, replace } from "pattern-lens/dom.js";
import { formatPlace, label } from "pattern-lens/heads.js";
import { logits } from "pattern-lens/residual/words.js";

const ROOM = 360;
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

export class HeadMap {
  constructor(headLink) {
    this.headLink = headLink;
    this.cells = new Map();
    this.grid = h("div", { class: "head-grid", role: "group", "aria-label": "heads: layers downwards, heads to the right" });
    this.says = h("p", { class: "head-says muted", role: "status" });
    for (const name of ["pointerover", "focusin"]) this.grid.addEventListener(name, (event) => this.say(event.target));
    this.grid.addEventListener("pointerleave", () => this.say(null));
    this.grid.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "section",
      { class: "residual-panel map-panel", id: "head-attribution", "aria-label": "heads" },
      h("header", { class: "panel-head" }, h("h2", null, "Heads"), h("span", { class: "muted" }, "layers downwards")),
      this.grid,
      this.says,
    );
  }

  show(view, found) {
    const values = found.values.filter((_, i) => found.heads[i] !== null);
    this.most = Math.max(...values.map(Math.abs), Number.MIN_VALUE);
    const { model } = view;
    const size = Math.max(6, Math.min(32, Math.floor(ROOM / model.n_heads) - 1));
    this.grid.style.setProperty("--cell", `${size}px`);
    this.grid.style.setProperty("--heads", String(model.n_heads));
    this.cells.clear();
    found.names.forEach((name, i) => {
      if (found.heads[i] === null) return;
      this.cells.set(name, this.cell(model, { name, layer: found.layers[i], head: found.heads[i], value: found.values[i] }));
    });
    replace(this.grid, [...this.cells.values()]);
    const first = this.cells.values().next().value;
    if (first) first.tabIndex = 0;
    this.say(null);
  }

  cell(model, place) {
    const { name, layer, head, value } = place;
    const attributes = {
      class: `head-cell part-cell ${value < 0 ? "is-negative" : "is-positive"}`,
      "aria-label": `${name} ${logits(value, true)}`,
      tabindex: -1,
      dataset: { head: name, value },
      style: { "--share": `${((100 * Math.abs(value)) / this.most).toFixed(1)}%` },
    };
    const isHeld = model.layers.includes(layer);
    const cell = isHeld ? this.headLink({ head: formatPlace(model.id, layer, head) }, attributes) : h("span", attributes);
    cell.place = place;
    return cell;
  }

  say(target) {
    const place = target?.place;
    this.says.textContent = place
      ? `${place.name} ${logits(place.value, true)}`
      : `full colour is ${logits(this.most)} logits; blue adds, orange takes away`;
  }

  onKey(event) {
    const step = STEPS[event.key];
    const place = event.target.place;
    if (!step || !place) return;
    event.preventDefault();
    this.cells.get(label(place.layer + step[0], place.head + step[1]))?.focus();
  }
}
