/** A token of the vocabulary: written exactly, or found among those that hold what was written. */
import { h, replace } from "pattern-lens/dom.js";
import { shown } from "pattern-lens/tokens.js";

const SEARCH_AFTER_MS = 150;

export class Chooser {
  /** @param {{state: object, source: object, view: object, go: Function}} app @param {"answer" | "target" | "distractor"} what */
  constructor(app, what) {
    this.app = app;
    this.what = what;
    this.at = -1;
    this.box = h("input", {
      id: `token-${what}`,
      type: "text",
      role: "combobox",
      autocomplete: "off",
      spellcheck: "false",
      size: 12,
      "aria-expanded": "false",
      "aria-controls": `tokens-${what}`,
      "aria-label": `${what} token`,
      title: "a token as it is in the vocabulary; a leading space is part of it",
      placeholder: what === "distractor" ? "none" : "most probable",
    });
    this.list = h("ul", { id: `tokens-${what}`, class: "popover token-list", role: "listbox", "aria-label": "tokens", hidden: true });
    this.box.addEventListener("input", () => this.searchSoon());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("focus", () => this.box.select());
    // The press that gives it the focus puts the caret somewhere, which undoes the selection.
    this.box.addEventListener("pointerdown", () => {
      this.isEntered = document.activeElement !== this.box;
    });
    this.box.addEventListener("click", () => this.isEntered && this.box.select());
    this.box.addEventListener("blur", () => this.leave());
    // A press would take the focus away before it is a click.
    this.list.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => this.take(event.target.closest("[role=option]")));
    this.clear = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `no ${what}`, title: "take it away", onclick: () => app.go({ [what]: null }) },
      "×",
    );
    this.element = h(
      "div",
      { class: "field token-field" },
      h("label", { class: "muted", for: `token-${what}` }, what),
      this.box,
      this.clear,
      this.list,
    );
  }

  /** @param {{id: number, text: string} | null} token that is shown */
  show(token) {
    this.token = token;
    const { state } = this.app;
    this.clear.hidden = !state[this.what];
    this.box.removeAttribute("aria-invalid");
    if (document.activeElement !== this.box || this.list.hidden) this.write();
  }

  /** What the address names and is no token stays written, so that it can be corrected. */
  refuse(sentence) {
    const text = this.app.state[this.what];
    this.token = null;
    this.write();
    this.clear.hidden = !text;
    // The sentence begins with what is wrong.
    const starts = [`'${text}'`, `"${text}"`, `no token '${text}'`, `no token ${text?.slice(1)}:`];
    if (text && starts.some((start) => sentence.startsWith(start))) this.box.setAttribute("aria-invalid", "true");
    else this.box.removeAttribute("aria-invalid");
  }

  write() {
    this.box.value = this.token ? shown(this.token.text) : shown(this.app.state[this.what] ?? "").replace("∅", "");
  }

  get text() {
    return this.box.value.replaceAll("␣", " ").replaceAll("⏎", "\n").replaceAll("⇥", "\t");
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.search(), SEARCH_AFTER_MS);
  }

  async search() {
    const words = this.text;
    if (!words) return this.close();
    const { n_found: n, tokens } = await this.app.source.tokens(this.app.view.model.id, words);
    if (words !== this.text || document.activeElement !== this.box) return undefined;
    this.at = -1;
    const more = n > tokens.length ? h("li", { class: "muted" }, `and ${(n - tokens.length).toLocaleString("en")} more`) : null;
    const none = n ? null : h("li", { class: "muted" }, "no token holds this");
    replace(
      this.list,
      tokens.map(({ id, text }, i) =>
        h(
          "li",
          { role: "option", id: `${this.list.id}-${i}`, "aria-selected": "false", dataset: { id } },
          h("bdi", null, shown(text)),
          h("span", { class: "muted" }, id),
        ),
      ),
      more,
      none,
    );
    this.list.hidden = false;
    this.box.setAttribute("aria-expanded", "true");
    return undefined;
  }

  close() {
    this.list.hidden = true;
    this.box.setAttribute("aria-expanded", "false");
    this.box.removeAttribute("aria-activedescendant");
  }

  leave() {
    clearTimeout(this.timer);
    this.close();
    if (!this.box.hasAttribute("aria-invalid")) this.write();
  }

  take(row) {
    if (!row) return;
    this.close();
    this.app.go({ [this.what]: `~${row.dataset.id}` });
  }

  onKey(event) {
    const rows = [...this.list.querySelectorAll("[role=option]")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && rows.length && !this.list.hidden) {
      event.preventDefault();
      this.at = Math.max(0, Math.min(rows.length - 1, this.at + step));
      rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === this.at)));
      this.box.setAttribute("aria-activedescendant", rows[this.at].id);
      rows[this.at].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(this.timer);
      if (!this.list.hidden && rows[this.at]) this.take(rows[this.at]);
      else {
        const { text } = this;
        this.close();
        this.app.go({ [this.what]: text || null });
      }
    } else if (event.key === "Escape") {
      this.close();
      this.write();
    }
  }
}
