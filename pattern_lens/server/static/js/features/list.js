/** The table of all features: sorted by any column, searched by number and token; the rows in sight are all that exist. */
import { h, replace } from "pattern-lens/dom.js";
import { parseFeatureOrder } from "pattern-lens/features/order.js";
import { COLUMNS, number, percent, tokenText } from "pattern-lens/features/words.js";
import { link } from "pattern-lens/single/links.js";

const ROW_HEIGHT = 24;
const BEYOND = 8;
const SEARCH_AFTER_MS = 150;
const WITHIN = [
  ["any", "any", "tokens that it raises most, and those that it fires on"],
  ["raised", "raises", "the tokens whose logits it raises most"],
  ["fires", "fires on", "the tokens of its stored sequences that it fires on"],
];
const WAYS = { true: "lowest first", false: "highest first" };

export class FeatureList {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.rows = new Uint32Array(0);
    this.search = h("input", {
      type: "search",
      id: "feature-search",
      placeholder: "Number or token",
      "aria-label": "search the features by number or token",
      title: "a number, or a part of a token; ␣ is a space  /",
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => this.searchSoon(),
      onkeydown: (event) => this.onSearchKey(event),
    });
    this.within = h(
      "span",
      { class: "segments", role: "group", "aria-label": "search among" },
      WITHIN.map(([name, text, title]) =>
        h("button", { type: "button", class: "segment", title, dataset: { within: name }, onclick: () => app.go({ within: name }) }, text),
      ),
    );
    this.count = h("p", { class: "muted", id: "feature-count", role: "status" });
    this.head = h("div", { class: "feature-row feature-columns", role: "row" }, COLUMNS.map((column) => this.heading(column)));
    this.room = h("div", { class: "feature-room", role: "rowgroup" });
    this.body = h("div", { class: "feature-rows" }, this.room);
    this.body.addEventListener("scroll", () => this.draw());
    this.body.addEventListener("keydown", (event) => this.onKey(event));
    this.grid = h("div", { class: "feature-grid", role: "grid", id: "features", "aria-label": "all features" }, this.head, this.body);
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.body);
    this.element = h(
      "section",
      { class: "features-panel list-panel", "aria-label": "all features" },
      h("div", { class: "list-search" }, this.search, this.within),
      this.grid,
      this.count,
    );
  }

  close() {
    clearTimeout(this.timer);
    this.sizes.disconnect();
  }

  heading([name, title, what]) {
    const turn = () => {
      this.app.go({ featureOrder: this.app.state.featureOrder === name ? `-${name}` : name });
    };
    return h(
      "span",
      { role: "columnheader", class: `column-${name}` },
      h("button", { type: "button", class: "quiet", title: what, dataset: { sort: name, title }, onclick: turn }, title),
    );
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.searchNow(), SEARCH_AFTER_MS);
  }

  searchNow() {
    clearTimeout(this.timer);
    const search = this.search.value.replaceAll("␣", " ").replaceAll("⏎", "\n").replaceAll("⇥", "\t");
    return search === this.app.state.search ? Promise.resolve() : this.app.go({ search });
  }

  /** Enter goes to the feature of the number, else to the first that was found. */
  async onSearchKey(event) {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      this.focus(this.rows[0]);
    }
    if (event.key !== "Enter") return;
    event.preventDefault();
    const text = this.search.value.trim();
    await this.searchNow();
    const { table, sae } = this.app.view;
    const isNumber = /^[0-9]{1,9}$/.test(text) && Number(text) < sae.n_features;
    const feature = isNumber ? Number(text) : table.feature[this.rows[0]];
    if (feature !== undefined) this.app.go({ feature });
  }

  /** Takes the table of another autoencoder. */
  place({ table }) {
    this.table = table;
    for (const [name, , , key] of COLUMNS) this.grid.classList.toggle(`lacks-${name}`, !table[key]);
    this.body.scrollTop = 0;
  }

  /** Shows these rows. @param {string} sentence why a search found less than it might */
  show(rows, sentence) {
    this.rows = rows;
    const { search, within, featureOrder } = this.app.state;
    if (document.activeElement !== this.search) this.search.value = search;
    for (const button of this.within.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.within === within));
    this.writeHeadings(featureOrder);
    this.room.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.grid.setAttribute("aria-rowcount", String(rows.length + 1));
    const all = this.table.feature.length.toLocaleString("en");
    const n = rows.length.toLocaleString("en");
    const what = search ? `${n} of ${all} features found` : `${all} feature${this.table.feature.length === 1 ? "" : "s"}`;
    this.count.textContent = [what, sentence].filter(Boolean).join(". ");
    if (!this.isListed(this.app.state.feature)) this.body.scrollTop = 0;
    this.keepInSight();
    this.draw({ isNew: true });
  }

  writeHeadings(order) {
    const { column, isUp } = parseFeatureOrder(order);
    for (const button of this.head.querySelectorAll("button")) {
      const isHere = button.dataset.sort === column;
      button.textContent = button.dataset.title + (isHere ? (isUp ? " ↑" : " ↓") : "");
      button.parentElement.setAttribute("aria-sort", isHere ? (isUp ? "ascending" : "descending") : "none");
      button.setAttribute("aria-pressed", String(isHere));
      button.setAttribute("aria-label", button.dataset.title + (isHere ? `, ${WAYS[isUp]}` : ""));
    }
  }

  /** Makes the rows that are in sight, and a few beyond. */
  draw({ isNew = false } = {}) {
    if (!this.table) return;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW_HEIGHT) - BEYOND);
    const last = Math.min(this.rows.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / ROW_HEIGHT) + BEYOND);
    const key = `${first} ${last} ${this.app.state.feature}`;
    if (!isNew && key === this.drawn) return;
    this.drawn = key;
    const focused = this.room.contains(document.activeElement) ? document.activeElement.dataset.feature : null;
    const rows = Array.from({ length: Math.max(0, last - first) }, (_, i) => this.row(first + i));
    if (!this.rows.length) rows.push(h("p", { class: "muted no-rows" }, this.table.feature.length ? "No feature is found by this." : "No feature yet."));
    replace(this.room, rows);
    if (focused !== null) this.room.querySelector(`[data-feature="${focused}"]`)?.focus({ preventScroll: true });
  }

  row(at) {
    const row = this.rows[at];
    const feature = this.table.feature[row];
    const isChosen = feature === this.app.state.feature;
    const isFirst = at === 0 && !this.isListed(this.app.state.feature);
    const element = link(
      this.app,
      { feature },
      {
        class: `feature-row${isChosen ? " is-chosen" : ""}`,
        role: "row",
        tabindex: isChosen || isFirst ? "0" : "-1",
        "aria-rowindex": at + 2,
        "aria-selected": String(isChosen),
        dataset: { feature },
      },
      COLUMNS.map(([name]) => this.cell(name, row)),
    );
    element.style.top = `${at * ROW_HEIGHT}px`;
    return element;
  }

  cell(name, row) {
    const { table } = this;
    const attributes = { role: "gridcell", class: `column-${name}` };
    const value = (key) => table[key]?.[row] ?? null;
    if (name === "feature") return h("b", attributes, table.feature[row]);
    if (name === "density") return h("span", attributes, percent(value("density")));
    if (name !== "logit") return h("span", attributes, number(value(COLUMNS.find(([one]) => one === name)[3])));
    const token = value("top_token");
    const isToken = token !== null && token >= 0;
    const title = isToken ? `${tokenText(table.texts, token)} ${number(value("top_logit"))}` : null;
    return h("span", { ...attributes, title }, isToken ? h("bdi", { class: "mono", dir: "ltr" }, tokenText(table.texts, token)) : "–");
  }

  isListed(feature) {
    return this.rows.some((row) => this.table.feature[row] === feature);
  }

  /** Marks the chosen feature, and brings it into sight. */
  point() {
    this.keepInSight();
    this.draw();
  }

  keepInSight() {
    const at = this.rows.findIndex((row) => this.table.feature[row] === this.app.state.feature);
    if (at < 0) return;
    const [top, height] = [at * ROW_HEIGHT, this.body.clientHeight];
    if (top < this.body.scrollTop) this.body.scrollTop = top;
    else if (top + ROW_HEIGHT > this.body.scrollTop + height) this.body.scrollTop = top + ROW_HEIGHT - height;
  }

  onKey(event) {
    const feature = Number(event.target.closest?.(".feature-row")?.dataset.feature);
    const at = this.rows.findIndex((row) => this.table.feature[row] === feature);
    if (at < 0) return;
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW_HEIGHT) - 1);
    const last = this.rows.length - 1;
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(last, at + page), PageUp: Math.max(0, at - page), Home: 0, End: last };
    const to = steps[event.key];
    if (to === undefined || this.rows[to] === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.app.go({ feature: this.table.feature[this.rows[to]] }, { isStep: true });
    this.focus(this.rows[to]);
  }

  focus(row) {
    if (row === undefined) return;
    this.draw({ isNew: true });
    this.room.querySelector(`[data-feature="${this.table.feature[row]}"]`)?.focus({ preventScroll: true });
  }
}
