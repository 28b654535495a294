/**
 * The logit lens: what each stream would say next, streams upwards, positions to the right. Positions come in blocks, as the
 * server answers them, and only those in sight are elements.
 */
import { h, replace } from "pattern-lens/dom.js";
import { percent, streamTitle } from "pattern-lens/residual/words.js";
import { shown, tokenLabel } from "pattern-lens/tokens.js";

const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
// From here on the ground is too strong for the text of a dark page, and of a light one.
const STRONG = 0.6;
const FULL = 0.8;
// What is only scrolled past is not asked for: a block of a large vocabulary takes the server a second.
const STAYS_MS = 120;

export class LensTable {
  /** @param {import("./app.js").App} app @param {{onHover: (cell: object | null) => void}} listeners */
  constructor(app, { onHover }) {
    this.app = app;
    this.onHover = onHover;
    this.scroller = h("div", { class: "lens-scroller", id: "lens", role: "grid", "aria-label": "logit lens" });
    this.seen = new IntersectionObserver((entries) => this.sighted(entries), { root: this.scroller, rootMargin: "0px 600px" });
    this.scroller.addEventListener("click", (event) => this.pick(event.target));
    this.scroller.addEventListener("keydown", (event) => this.onKey(event));
    for (const name of ["pointerover", "focusin"]) this.scroller.addEventListener(name, (event) => this.hovered(event.target));
    this.scroller.addEventListener("pointerleave", () => this.onHover(null));
    this.element = h(
      "section",
      { class: "residual-panel lens-panel", "aria-label": "logit lens" },
      h(
        "header",
        { class: "panel-head" },
        h("h2", null, "Logit lens"),
        h("span", { class: "muted" }, "the token that each stream, unembedded, finds most probable next"),
        h(
          "span",
          { class: "lens-legend muted" },
          "probability 0",
          h("span", { class: "lens-ramp", "aria-hidden": "true" }),
          "1",
        ),
      ),
      this.scroller,
    );
  }

  stop() {
    this.seen.disconnect();
  }

  async update(view) {
    const isNew = this.view?.prompt !== view.prompt || this.view.model.id !== view.model.id;
    this.view = view;
    if (isNew) this.build();
    const block = this.blocks[Math.floor(view.position / view.about.block)];
    await this.fill(block);
    this.mark(isNew);
  }

  build() {
    const { view } = this;
    // The end of the model at the top: layers count upwards, as they do in drawings of a transformer.
    this.rows = [...view.about.streams].reverse();
    const size = view.about.block;
    const n = Math.max(1, Math.ceil(view.nPos / size));
    this.scroller.setAttribute("aria-rowcount", this.rows.length + 1);
    this.scroller.setAttribute("aria-colcount", view.nPos + 1);
    this.seen.disconnect();
    this.blocks = Array.from({ length: n }, (_, number) => this.block(number, Math.min(size, view.nPos - number * size)));
    const labels = h(
      "div",
      { class: "lens-labels", role: "rowgroup" },
      h("div", { class: "lens-corner muted" }, "stream"),
      this.rows.map((name) => h("div", { class: "lens-stream", role: "rowheader", title: streamTitle(name) }, name)),
    );
    replace(this.scroller, labels, this.blocks);
    this.scroller.scrollLeft = 0;
    for (const block of this.blocks) this.seen.observe(block);
  }

  block(number, width) {
    const element = h("div", { class: "lens-block", role: "rowgroup", dataset: { block: number }, style: { "--width": width } });
    element.number = number;
    return element;
  }

  sighted(entries) {
    for (const { target, isIntersecting } of entries) {
      target.isNear = isIntersecting;
      if (isIntersecting) setTimeout(() => target.isNear && this.tryFill(target), STAYS_MS);
      else if (!target.contains(document.activeElement)) this.empty(target);
    }
  }

  async tryFill(block) {
    try {
      await this.fill(block);
    } catch (error) {
      replace(block, h("p", { class: "error lens-error" }, error.message));
    }
  }

  empty(block) {
    block.cells = null;
    replace(block);
  }

  async fill(block) {
    if (block.cells) return;
    const { view } = this;
    const found = await this.app.source.lens(view.model.id, view.prompt.key, block.number);
    if (view.prompt !== this.view.prompt || block.cells || !block.isConnected) return;
    const places = found.top_ids[0].map((_, i) => found.first + i);
    const head = h("div", { class: "lens-row", role: "row", "aria-rowindex": 1 }, places.map((place) => this.header(place)));
    block.cells = new Map();
    const rows = this.rows.map((name, row) => {
      const at = found.streams.indexOf(name);
      const cells = places.map((place, i) => this.cell(block, found, { name, at, place, i }));
      return h("div", { class: "lens-row", role: "row", "aria-rowindex": row + 2 }, cells);
    });
    replace(block, head, rows);
    this.mark(false);
  }

  header(place) {
    const label = tokenLabel(place, this.view.prompt.tokens[place] ?? "");
    return h(
      "div",
      { class: "lens-token", role: "columnheader", title: label, dataset: { place } },
      h("span", { class: "muted" }, place),
      h("bdi", null, shown(this.view.prompt.tokens[place] ?? "")),
    );
  }

  cell(block, found, { name, at, place, i }) {
    const probability = found.top_probabilities[at][i][0];
    const text = shown(found.texts[found.top_ids[at][i][0]]);
    const cell = h(
      "div",
      {
        class: `lens-cell${probability > FULL ? " is-full" : probability > STRONG ? " is-strong" : ""}`,
        role: "gridcell",
        tabindex: -1,
        dataset: { stream: name, position: place, probability },
        "aria-label": `${name}, position ${place}: ${text}, ${percent(probability)}`,
        "aria-colindex": place + 2,
        style: { "--share": `${Math.round(100 * probability)}%` },
      },
      h("bdi", null, text),
    );
    block.cells.set(`${name} ${place}`, cell);
    return cell;
  }

  cellAt(stream, position) {
    return this.blocks[Math.floor(position / this.view.about.block)]?.cells?.get(`${stream} ${position}`);
  }

  mark(isScrolled) {
    const { stream, position } = this.view;
    for (const old of this.scroller.querySelectorAll("[aria-selected], .is-here")) {
      old.removeAttribute("aria-selected");
      old.classList.remove("is-here");
      if (old.tabIndex === 0) old.tabIndex = -1;
    }
    for (const header of this.scroller.querySelectorAll(`[data-place="${position}"]`)) header.classList.add("is-here");
    const cell = this.cellAt(stream, position);
    if (!cell) return;
    cell.setAttribute("aria-selected", "true");
    cell.tabIndex = 0;
    if (isScrolled) this.intoSight(cell);
  }

  /** Sideways only: the page itself stays where it is. */
  intoSight(cell) {
    const [box, room] = [cell.getBoundingClientRect(), this.scroller.getBoundingClientRect()];
    if (box.right > room.right) this.scroller.scrollLeft += box.right - room.right + 8;
  }

  hovered(target) {
    const cell = target.closest?.(".lens-cell");
    this.onHover(cell ? { stream: cell.dataset.stream, position: Number(cell.dataset.position) } : null);
  }

  pick(target) {
    const cell = target.closest?.(".lens-cell");
    if (cell) this.app.go({ stream: this.streamOf(cell.dataset.stream), position: Number(cell.dataset.position) });
  }

  /** The last stream is the default, which the address leaves out. */
  streamOf(name) {
    return name === this.view.about.streams.at(-1) ? null : name;
  }

  onKey(event) {
    const cell = event.target.closest?.(".lens-cell");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.pick(cell);
      return;
    }
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    this.move(this.rows.indexOf(cell.dataset.stream) + step[0], Number(cell.dataset.position) + step[1]);
  }

  async move(row, position) {
    const stream = this.rows[row];
    if (stream === undefined || position < 0 || position >= this.view.nPos) return;
    await this.fill(this.blocks[Math.floor(position / this.view.about.block)]);
    const cell = this.cellAt(stream, position);
    cell?.focus({ preventScroll: false });
  }
}
