/** What each part adds to the logit, the largest first: blue adds, orange takes away. */
import { h, replace } from "pattern-lens/dom.js";
import { formatPlace } from "pattern-lens/heads.js";
import { UNITS } from "pattern-lens/residual/app.js";
import { logits, unitName } from "pattern-lens/residual/words.js";

const SHOWN = 16;

export class Bars {
  /** @param {import("./app.js").App} app @param {Function} headLink makes a link to a pattern */
  constructor(app, headLink) {
    this.app = app;
    this.headLink = headLink;
    this.isWhole = false;
    this.units = h("span", { class: "segments unit-segments", role: "group", "aria-label": "parts" });
    this.list = h("ol", { class: "parts", id: "parts" });
    this.more = h("button", { type: "button", class: "link", onclick: () => this.toggle() });
    this.note = h("p", { class: "muted" });
    this.element = h(
      "section",
      { class: "residual-panel bars-panel", "aria-label": "parts" },
      h("header", { class: "panel-head" }, h("h2", null, "Parts"), this.units),
      this.list,
      this.note,
      this.more,
    );
  }

  update(view) {
    this.view = view;
    replace(
      this.units,
      UNITS.map((unit) =>
        h(
          "button",
          {
            type: "button",
            class: "segment",
            "aria-pressed": String(unit === view.unit),
            disabled: view.about.units[unit] !== null,
            title: view.about.units[unit] ?? `by ${unitName(unit)}`,
            dataset: { unit },
            onclick: () => this.app.go({ unit }),
          },
          unit,
        ),
      ),
    );
  }

  show(found) {
    this.found = found;
    const order = found.values.map((_, i) => i).sort((a, b) => Math.abs(found.values[b]) - Math.abs(found.values[a]));
    const shown = this.isWhole ? order : order.slice(0, SHOWN);
    const most = Math.abs(found.values[order[0]]) || 1;
    replace(
      this.list,
      shown.map((i) => this.row(found, i, most)),
    );
    this.note.textContent = this.noteOf(found);
    this.note.hidden = !this.note.textContent;
    this.more.hidden = order.length <= SHOWN;
    this.more.textContent = this.isWhole ? "show fewer" : `show all ${order.length}`;
  }

  noteOf({ unit, n_parts: n, names, others }) {
    if (unit === "layer") return "Each stream holds all that is before it: these do not add up.";
    if (names.length < n) return `${(n - names.length).toLocaleString("en")} further parts add ${logits(others, true)} together.`;
    return "";
  }

  row(found, i, most) {
    const value = found.values[i];
    const name = found.names[i];
    const head = found.heads?.[i] ?? null;
    const title = name === "remainder" ? "all that none of these wrote: embeddings, other parts of layers, biases" : null;
    const label = head === null ? h("span", { class: "part-name", title }, name) : this.link(name, found.layers[i], head);
    const width = `${(50 * Math.abs(value)) / most}%`;
    return h(
      "li",
      { class: value < 0 ? "is-negative" : "is-positive", dataset: { part: name, value } },
      label,
      h("span", { class: "part-room", "aria-hidden": "true" }, h("span", { class: "part-bar", style: { width } })),
      h("span", { class: "part-value" }, logits(value, true)),
    );
  }

  link(name, layer, head) {
    const { model } = this.view;
    if (!model.layers.includes(layer)) return h("span", { class: "part-name" }, name);
    const attributes = { class: "part-name", title: `the pattern of ${name}` };
    return this.headLink({ head: formatPlace(model.id, layer, head) }, attributes, name);
  }

  toggle() {
    this.isWhole = !this.isWhole;
    this.show(this.found);
  }
}
