/** The prompt as its tokens, shaded by the attention that the current query pays to each. */
import { h, replace } from "pattern-lens/dom.js";
import { shown, tokenLabel } from "pattern-lens/tokens.js";
import { position } from "pattern-lens/colours.js";

const LEVELS = 20;
// Shading more tokens than this takes a good part of a frame, so a moving pointer shades them a few times a second only.
const MANY = 256;
const SHADE_EVERY_MS = 70;
const SETTERS = [
  ["key", "Left click sets the key, right click the query"],
  ["query", "Left click sets the query, right click the key"],
];

export class TokensPanel {
  /** @param {import("./cursor.js").Cursor} cursor */
  constructor(cursor) {
    this.cursor = cursor;
    this.spans = [];
    this.timer = null;
    this.levels = new Uint8Array(0);
    this.sets = "key";
    this.list = h("div", { class: "tokens", dir: "ltr", role: "group", "aria-label": "tokens of the prompt" });
    this.list.addEventListener("click", (event) => this.choose(event, this.sets));
    this.list.addEventListener("contextmenu", (event) => this.choose(event, this.sets === "key" ? "query" : "key"));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h("section", { class: "single-panel tokens-panel", "aria-label": "tokens" }, this.heading(), this.list);
  }

  heading() {
    const choices = SETTERS.map(([name, title]) =>
      h(
        "button",
        {
          type: "button",
          class: "segment",
          title,
          "aria-pressed": String(name === this.sets),
          onclick: (event) => this.setWhat(name, event.currentTarget),
        },
        name,
      ),
    );
    this.count = h("span", { class: "muted" });
    return h(
      "header",
      { class: "panel-head" },
      h("h2", null, "Tokens"),
      this.count,
      h(
        "span",
        { class: "segments", role: "group", "aria-label": "a click sets the" },
        h("span", { class: "muted" }, "click sets"),
        ...choices,
      ),
    );
  }

  setWhat(name, button) {
    this.sets = name;
    for (const each of button.parentElement.querySelectorAll("button"))
      each.setAttribute("aria-pressed", String(each === button));
  }

  stop() {
    clearTimeout(this.timer);
  }

  /** @param {object} view */
  update({ pattern, queryTokens, keyTokens, scale }) {
    this.pattern = pattern;
    this.scale = scale;
    const tokens = keyTokens ?? queryTokens ?? [];
    // Of a cross-attention the prompt has the queries or the keys only; its tokens stand for that axis alone.
    this.axes = { query: Boolean(queryTokens), key: Boolean(keyTokens) };
    this.count.textContent = tokens.length.toLocaleString("en");
    this.element.hidden = !tokens.length;
    if (tokens !== this.tokens) this.write(tokens);
    this.shadedBy = null;
  }

  write(tokens) {
    this.tokens = tokens;
    this.marks = null;
    this.levels = new Uint8Array(tokens.length);
    this.spans = tokens.map((text, index) =>
      h(
        "span",
        {
          class: "token",
          tabindex: index ? "-1" : "0",
          role: "button",
          "data-index": index,
          title: tokenLabel(index, text),
          "aria-label": `token ${tokenLabel(index, text)}`,
        },
        h("bdi", null, shown(text)),
      ),
    );
    // A line of the prompt ends where its token of a newline does, as it does in the text.
    replace(
      this.list,
      this.spans.flatMap((span, index) => (tokens[index].endsWith("\n") ? [span, h("br")] : [span])),
    );
  }

  index(event) {
    const token = event.target instanceof Element ? event.target.closest(".token") : null;
    return token ? Number(token.dataset.index) : null;
  }

  choose(event, what) {
    const index = this.index(event);
    if (index === null) return;
    event.preventDefault();
    this.set(what, index);
    // The keyboard goes on from the cell, unless it was the keyboard that chose the token.
    if (event.detail) document.activeElement?.blur();
  }

  set(wanted, index) {
    const what = this.axes[wanted] ? wanted : wanted === "key" ? "query" : "key";
    const cell = this.cursor.cell ?? { query: this.pattern.nQuery - 1, key: 0 };
    this.cursor.lock({ ...cell, [what]: index });
  }

  onKey(event) {
    const index = this.index(event);
    if (index === null) return;
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: this.spans.length - 1 }[event.key];
    if (to !== undefined) this.focus(index, to);
    else if (event.key === "Enter" || event.key === " ") this.set(event.shiftKey ? "query" : "key", index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  focus(from, to) {
    const next = this.spans[to];
    if (!next) return;
    this.spans[from].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  point({ cell }) {
    this.cell = cell;
    if (!cell || !this.pattern) return;
    if (this.spans.length <= MANY) this.draw();
    else this.timer ??= setTimeout(() => this.draw(), SHADE_EVERY_MS);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    const { cell } = this;
    if (!cell) return;
    const by = this.axes.key ? cell.query : cell.key;
    if (by !== this.shadedBy) this.shade(by);
    this.mark(cell);
  }

  /** Only tokens whose shade changes are touched: most of a row is nearly 0, and a prompt may hold a thousand. */
  shade(by) {
    this.shadedBy = by;
    const values = this.axes.key ? this.pattern.row(by) : this.pattern.column(by);
    for (let i = 0; i < this.spans.length; i++) {
      const level = levelOf(values[i], this.scale);
      if (level === this.levels[i]) continue;
      this.levels[i] = level;
      this.spans[i].style.setProperty("--attention", `${(level / LEVELS) * 80}%`);
    }
  }

  mark({ query, key }) {
    const marks = { query: this.axes.query ? this.spans[query] : undefined, key: this.axes.key ? this.spans[key] : undefined };
    for (const name of ["query", "key"]) {
      if (this.marks?.[name] === marks[name]) continue;
      this.marks?.[name]?.classList.remove(`is-${name}`);
      marks[name]?.classList.add(`is-${name}`);
      if (this.cursor.isLocked) keepInSight(this.list, marks[name]);
    }
    this.marks = marks;
  }
}

/** A step of shade; the square root lets small attention be seen. */
function levelOf(value, scale) {
  if (!(value > 0)) return 0;
  const share = scale === "log" ? position(value, "log") : Math.sqrt(value);
  return Math.round(LEVELS * Math.min(1, share));
}

function keepInSight(list, token) {
  if (!token) return;
  const [box, room] = [token.getBoundingClientRect(), list.getBoundingClientRect()];
  if (box.top < room.top) list.scrollTop -= room.top - box.top + 4;
  else if (box.bottom > room.bottom) list.scrollTop += box.bottom - room.bottom + 4;
}
