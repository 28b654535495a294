/** Figures that can be shown, with what their functions say of themselves. */
import { h, replace } from "pattern-lens/dom.js";

const RAW = { name: "raw", doc: "The attention pattern itself, drawn from the stored numbers.", source: null, isDrawn: true };

export class FunctionsPanel {
  #known = [];

  constructor(app) {
    this.app = app;
    this.list = h("ul", { class: "functions" });
    this.count = h("span", { class: "muted" });
    this.element = h(
      "section",
      { class: "part", "aria-labelledby": "functions-title" },
      h("div", { class: "row" }, h("h2", { id: "functions-title" }, "Figures"), this.count),
      this.list,
    );
  }

  /** Names of the figures of the chosen models; null before they are known. */
  names = null;

  /** @param {object[][]} functions of each chosen model */
  setFunctions(functions, hasPatterns) {
    const known = new Map();
    for (const one of functions.flat()) known.set(one.name, merged(known.get(one.name), one));
    if (hasPatterns) known.set("raw", { ...known.get("raw"), ...RAW });
    const raw = known.get("raw");
    known.delete("raw");
    this.#known = [raw, ...known.values()].filter(Boolean);
    this.names = new Set(this.#known.map((one) => one.name));
    this.update();
  }

  update() {
    const chosen = this.app.model.functions();
    this.count.textContent = this.#known.length
      ? `${this.#known.filter((one) => chosen.includes(one.name)).length} of ${this.#known.length}`
      : "";
    const open = new Set([...this.list.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    const focused = document.activeElement?.dataset?.function;
    replace(
      this.list,
      this.#known.map((one) => this.#row(one, chosen.includes(one.name), open.has(one.name))),
    );
    if (focused) this.list.querySelector(`[data-function="${CSS.escape(focused)}"]`)?.focus();
  }

  #row(one, isChosen, isOpen) {
    const box = h("input", {
      type: "checkbox",
      checked: isChosen,
      dataset: { function: one.name },
      onchange: (event) => this.#choose(one.name, event.currentTarget.checked),
    });
    return h(
      "li",
      {},
      h(
        "div",
        { class: "row function" },
        h("label", { class: "check" }, box, h("bdi", { class: "mono" }, one.name)),
        h("span", { class: "spring" }),
        facts(one),
      ),
      !isLong(one) && one.doc && h("p", { class: "doc muted" }, one.doc.trim()),
      isLong(one) &&
        h(
          "details",
          { dataset: { name: one.name }, open: isOpen },
          h("summary", {}, firstLine(one.doc) || "source"),
          one.doc?.trim().includes("\n") && h("p", { class: "doc" }, one.doc.trim().split("\n").slice(1).join("\n").trim()),
          one.source && h("pre", { class: "source", tabindex: "0" }, one.source),
        ),
    );
  }

  #choose(name, isChosen) {
    const before = this.app.model.functions().filter((one) => one !== name);
    const names = this.#known.map((one) => one.name);
    const now = isChosen ? names.filter((one) => one === name || before.includes(one)) : before;
    this.app.change({ functions: now.length === 1 && now[0] === "raw" ? null : now });
  }
}

function isLong(one) {
  return Boolean(one.source) || Boolean(one.doc?.trim().includes("\n"));
}

function merged(before, one) {
  if (!before) return one;
  return {
    ...before,
    n_figures: before.n_figures + one.n_figures,
    n_failed: before.n_failed + one.n_failed,
    formats: [...new Set([...before.formats, ...one.formats])],
  };
}

function facts(one) {
  if (one.isDrawn) return h("span", { class: "muted" }, "drawn from the data");
  const format = one.formats.join(", ");
  const of = one.of === "head" ? "" : `of a ${one.of} · `;
  return [
    one.n_failed > 0 && h("span", { class: "badge is-bad" }, `${one.n_failed.toLocaleString("en")} failed`),
    h("span", { class: "muted" }, `${of}${(one.n_figures - one.n_failed).toLocaleString("en")}${format ? ` ${format}` : ""}`),
  ];
}

function firstLine(doc) {
  return doc?.trim().split("\n")[0] ?? "";
}
