/** The prompts of the file: the one before and after, and a list to search. */
import { h, icon, replace } from "pattern-lens/dom.js";
import { link, point } from "pattern-lens/single/links.js";
import { shown } from "pattern-lens/tokens.js";

const MOST_ROWS = 200;
const SEARCH_AFTER_MS = 200;

const textOf = (text, length) => shown(text.slice(0, length)).replaceAll("␣", " ");

export class Prompts {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.all = { prompts: [], n_prompts: 0 };
    this.before = link(
      app,
      null,
      { class: "button step", title: "previous prompt  p", "aria-label": "previous prompt" },
      icon("M10 3 5 8l5 5"),
    );
    this.after = link(
      app,
      null,
      { class: "button step", title: "next prompt  n", "aria-label": "next prompt" },
      icon("m6 3 5 5-5 5"),
    );
    this.name = h("bdi", { class: "prompt-name", dir: "auto" });
    this.place = h("span", { class: "muted prompt-place" });
    this.opener = h(
      "button",
      { type: "button", class: "prompt-opener", popovertarget: "prompt-list", title: "choose a prompt  /" },
      this.name,
      this.place,
    );
    this.search = h("input", {
      type: "search",
      id: "prompt-search",
      placeholder: "Search text or hash",
      "aria-label": "search the prompts",
      oninput: () => this.searchSoon(),
    });
    this.count = h("p", { class: "muted", role: "status" });
    this.list = h("ul", { class: "prompt-rows" });
    this.popover = h(
      "div",
      { id: "prompt-list", class: "popover prompt-popover", popover: "auto" },
      this.search,
      this.count,
      this.list,
    );
    this.popover.addEventListener("toggle", (event) => event.newState === "open" && this.opened());
    this.popover.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "div",
      { class: "bar-group prompt-group", role: "group", "aria-label": "prompt" },
      h("span", { class: "joined" }, this.before, this.opener, this.after),
      this.popover,
    );
  }

  update(view) {
    const isNew = this.view?.model.id !== view.model.id;
    this.view = view;
    replace(this.name, textOf(view.prompt.text, 120) || view.prompt.hash);
    this.opener.setAttribute("aria-label", `prompt ${view.prompt.hash}: choose another`);
    if (isNew) this.all = { prompts: [], n_prompts: view.model.n_prompts };
    this.beside();
  }

  /** The list comes after the picture: nothing waits for it. */
  async load() {
    const { id } = this.view.model;
    if (this.loaded === id) return;
    this.loaded = id;
    await this.app.source.prompts(id, (found) => {
      if (this.view.model.id !== id) return;
      this.all = found;
      this.beside();
      if (this.popover.matches(":popover-open")) this.showFound();
    });
  }

  reload() {
    this.loaded = null;
    return this.load();
  }

  at() {
    const { prompt } = this.app.state;
    return this.all.prompts.findIndex(({ key, hash }) => hash === prompt || key === prompt);
  }

  /** The prompt so many places further, as changes of the state; null at the ends. */
  to(step) {
    const at = this.at();
    const other = at < 0 ? undefined : this.all.prompts[at + step];
    return other ? { prompt: other.hash, cell: null } : null;
  }

  beside() {
    point(this.app, this.before, this.to(-1));
    point(this.app, this.after, this.to(1));
    const at = this.at();
    const total = this.all.n_prompts.toLocaleString("en");
    this.place.textContent = at < 0 ? `of ${total}` : `${(at + 1).toLocaleString("en")} of ${total}`;
  }

  open() {
    this.popover.showPopover();
  }

  opened() {
    this.search.focus();
    this.search.select();
    this.showFound();
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.showFound(), this.needsServer() ? SEARCH_AFTER_MS : 0);
  }

  needsServer() {
    return this.app.source.isLive && this.all.n_prompts > this.all.prompts.length;
  }

  async showFound() {
    const words = this.search.value.trim();
    const { prompts, n } = await this.found(words);
    if (words !== this.search.value.trim()) return;
    const more = n > MOST_ROWS ? `, the first ${MOST_ROWS} are listed` : "";
    this.count.textContent = `${n.toLocaleString("en")} prompt${n === 1 ? "" : "s"}${words ? " found" : ""}${more}`;
    replace(
      this.list,
      prompts.slice(0, MOST_ROWS).map((prompt) => this.row(prompt)),
    );
    this.list.querySelector("[aria-current=page]")?.scrollIntoView({ block: "nearest" });
  }

  async found(words) {
    const { prompts, n_prompts: total } = this.all;
    if (!words) return { prompts, n: total };
    if (this.needsServer()) {
      const answer = await this.app.source.search(this.view.model.id, words);
      return { prompts: answer.prompts, n: answer.n_found };
    }
    const small = words.toLowerCase();
    const found = prompts.filter(({ text, hash }) => text.toLowerCase().includes(small) || hash.toLowerCase().includes(small));
    return { prompts: found, n: found.length };
  }

  row(prompt) {
    const isHere = prompt.key === this.view.prompt.key;
    const about = `${prompt.n_ctx.toLocaleString("en")} tokens${prompt.dataset ? ` · ${prompt.dataset}` : ""} · ${prompt.hash}`;
    const text = h("bdi", { class: "prompt-line", dir: "auto" }, textOf(prompt.text, 140) || "∅");
    const row = link(
      this.app,
      { prompt: prompt.hash, cell: null },
      { "aria-current": isHere ? "page" : null },
      text,
      h("span", { class: "muted" }, about),
    );
    row.addEventListener("click", () => this.popover.hidePopover());
    return h("li", null, row);
  }

  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const rows = [...this.list.querySelectorAll("a")];
    if (event.key === "Enter" && event.target === this.search) rows[0]?.click();
    if (!step || !rows.length) return;
    event.preventDefault();
    const next = rows[rows.indexOf(document.activeElement) + step];
    (next ?? (step < 0 ? this.search : rows.at(-1))).focus();
  }
}
