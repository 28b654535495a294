/** The nodes with their measures: sorted by any, filtered by kind; the rows in sight are all that exist. */
import { h, replace } from "pattern-lens/dom.js";
import { COLUMNS, KINDS, number, placesOf, SIGNED, signed } from "pattern-lens/debugger/words.js";
import { parseOrder, sorted } from "pattern-lens/debugger/order.js";

const ROW_HEIGHT = 26;
const WAYS = { "": "largest first, whatever the sign", high: "highest first", low: "lowest first" };

export class NodeTable {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.chips = h("div", { class: "node-kinds", role: "group", "aria-label": "kinds of nodes" });
    this.count = h("p", { class: "muted", id: "node-count", role: "status" });
    this.place = h("div", { class: "node-table", id: "nodes" });
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "section",
      { class: "debugger-panel nodes-panel", "aria-label": "nodes" },
      h("header", { class: "panel-head" }, h("h2", null, "Nodes"), this.chips),
      this.place,
      this.count,
    );
  }

  /** Makes the table; the library comes when the page is there. */
  async open() {
    const { TabulatorFull } = await import("tabulator");
    if (!this.place.isConnected) return;
    const table = new TabulatorFull(this.place, {
      data: [],
      index: "name",
      layout: "fitColumns",
      height: "100%",
      rowHeight: ROW_HEIGHT,
      headerSort: false,
      placeholder: "No node of these kinds.",
      columns: this.columns(),
      rowFormatter: (row) => this.mark(row),
    });
    await new Promise((resolve) => {
      table.on("tableBuilt", resolve);
    });
    table.on("rowClick", (event, row) => this.app.go(chosen(row.getData())));
    this.table = table;
    this.headings = new Map([...this.place.querySelectorAll("button[data-measure]")].map((one) => [one.dataset.measure, one]));
    this.writeHeadings();
    if (!this.rows) return;
    await table.replaceData(this.rows);
    this.choose(this.chosen);
  }

  close() {
    this.table?.destroy();
    this.table = null;
  }

  columns() {
    const plain = { headerSort: false, resizable: false };
    return [
      { ...plain, title: "node", field: "name", width: 116, formatter: (cell) => h("b", { class: "node-name" }, cell.getValue()) },
      { ...plain, title: "where", field: "kind", minWidth: 96, widthGrow: 4, formatter: (cell) => this.places(cell.getData()) },
      ...COLUMNS.map(([measure, title, what]) => ({
        ...plain,
        title,
        field: measure,
        minWidth: SIGNED.includes(measure) ? 104 : 92,
        widthGrow: SIGNED.includes(measure) ? 2 : 1,
        titleFormatter: () => this.heading(measure, title, what),
        formatter: (cell) => this.bar(measure, cell.getValue()),
      })),
    ];
  }

  heading(measure, title, what) {
    return h(
      "button",
      { type: "button", class: "quiet node-sort", title: what, dataset: { measure, title }, onclick: () => this.turn(measure) },
      title,
    );
  }

  /** A click on a heading: largest first; then, of what has a sign, highest and lowest. */
  turn(measure) {
    const now = parseOrder(this.app.state.order);
    const ways = SIGNED.includes(measure) ? ["", "high", "low"] : [""];
    const way = now.measure === measure ? ways[(ways.indexOf(now.way) + 1) % ways.length] : "";
    this.app.go({ order: way ? `${measure}.${way}` : measure, chosen: null });
  }

  places(node) {
    const text = placesOf(node, this.view.prompt.tokens);
    return h("bdi", { class: "node-place", dir: "ltr", title: text }, text);
  }

  /** A number and its bar, from the middle where the measure has a sign. */
  bar(measure, value) {
    if (value === null || value === undefined) return h("span", { class: "muted" }, "–");
    const isSigned = SIGNED.includes(measure);
    const share = Math.abs(value) / (this.most[measure] || 1);
    const sign = value < 0 ? "is-negative" : "is-positive";
    return h(
      "span",
      { class: `node-value ${isSigned ? sign : "is-size"}` },
      h("span", { class: "node-room", "aria-hidden": "true" }, h("span", { style: { width: `${(isSigned ? 50 : 100) * share}%` } })),
      h("span", { class: "node-number" }, isSigned ? signed(value) : number(value)),
    );
  }

  /** Shows the nodes of an answer in the order and of the kinds that the state says. */
  show(view) {
    this.view = view;
    const { state } = this.app;
    const { kinds } = view.answer;
    this.kinds = kindsShown(state.kinds, kinds);
    const rows = sorted(view.rows.filter(({ kind }) => this.kinds.includes(kind)), state.order);
    const key = JSON.stringify([state.order, this.kinds]);
    if (this.shown !== view.answer || this.key !== key) {
      this.most = Object.fromEntries(COLUMNS.map(([measure]) => [measure, largest(rows, measure)]));
      this.rows = rows;
      this.table?.replaceData(rows);
    }
    [this.shown, this.key] = [view.answer, key];
    this.writeChips(kinds);
    this.writeHeadings();
    this.writeCount(kinds);
    return rows;
  }

  writeChips(kinds) {
    const there = Object.keys(KINDS).filter((kind) => kind in kinds);
    replace(
      this.chips,
      there.map((kind) => {
        const isOn = this.kinds.includes(kind);
        const [name, title] = KINDS[kind];
        return h(
          "button",
          { type: "button", class: "chip", "aria-pressed": String(isOn), title, dataset: { kind }, onclick: () => this.toggle(kind, there) },
          name,
        );
      }),
    );
  }

  toggle(kind, there) {
    const on = this.kinds.includes(kind) ? this.kinds.filter((one) => one !== kind) : [...this.kinds, kind];
    const kinds = there.filter((one) => on.includes(one));
    this.app.go({ kinds: kinds.length ? kinds : null, chosen: null });
    this.chips.querySelector(`[data-kind="${kind}"]`)?.focus();
  }

  writeHeadings() {
    const { measure, way } = parseOrder(this.app.state.order);
    for (const [name, heading] of this.headings ?? []) {
      const isHere = name === measure;
      heading.textContent = heading.dataset.title + (isHere ? { "": " ↓", high: " ↓+", low: " ↓−" }[way] : "");
      heading.setAttribute("aria-label", heading.dataset.title + (isHere ? `, ${WAYS[way]}` : ""));
      heading.setAttribute("aria-pressed", String(isHere));
    }
  }

  writeCount(kinds) {
    const all = this.kinds.reduce((sum, kind) => sum + kinds[kind].n, 0);
    const shown = this.rows.length;
    const least = shown < all ? `, the ${this.view.answer.each} largest of each kind by each measure` : "";
    const leftOut = this.view.answer.left_out ? ` ${this.view.answer.left_out}` : "";
    this.count.textContent = `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} nodes${least}.${leftOut}`;
  }

  /** Marks the chosen row, and brings it into sight. */
  choose(name, { isScrolled = true } = {}) {
    this.chosen = name;
    if (!this.table) return;
    for (const row of this.table.getRows("visible")) this.mark(row);
    if (isScrolled && this.rows.some((row) => row.name === name)) this.table.scrollToRow(name, "nearest", false).catch(() => {});
  }

  mark(row) {
    const element = row.getElement();
    const { name } = row.getData();
    const isChosen = name === this.chosen;
    element.classList.toggle("is-chosen", isChosen);
    element.setAttribute("aria-selected", String(isChosen));
    element.dataset.node = name;
    element.tabIndex = isChosen || (name === this.rows?.[0]?.name && !this.rows.some((one) => one.name === this.chosen)) ? 0 : -1;
  }

  onKey(event) {
    const at = this.rows?.findIndex((row) => row.name === event.target.closest?.(".tabulator-row")?.dataset.node) ?? -1;
    if (at < 0) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.rows.length - 1, Enter: at }[event.key];
    if (to === undefined || !this.rows[to]) return;
    event.preventDefault();
    event.stopPropagation();
    this.app.go(chosen(this.rows[to]));
    this.focus(this.rows[to].name);
  }

  async focus(name) {
    await this.table.scrollToRow(name, "nearest", false).catch(() => {});
    this.place.querySelector(`.tabulator-row[data-node="${CSS.escape(name)}"]`)?.focus();
  }
}

/** What a click on a row changes: a head is shown with it. */
function chosen({ name, kind }) {
  return kind === "pair" || kind === "head" ? { chosen: name, shownHead: null } : { chosen: name };
}

function largest(rows, measure) {
  return rows.reduce((most, row) => Math.max(most, Math.abs(row[measure] ?? 0)), 0);
}

/** Kinds that are shown: those asked for, else the finest, so that nothing is counted twice. */
export function kindsShown(asked, there) {
  const found = Object.keys(KINDS).filter((kind) => kind in there && asked?.includes(kind));
  if (found.length) return found;
  const coarse = { head: ["pair"], attn: ["pair", "head"], mlp: ["neuron"] };
  return Object.keys(KINDS).filter((kind) => kind in there && !coarse[kind]?.some((finer) => finer in there));
}
