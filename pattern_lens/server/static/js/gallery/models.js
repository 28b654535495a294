/** Models, and the choice of their heads: by map, by text, by stored score. */
import { table } from "pattern-lens/colours.js";
import { h, option, replace } from "pattern-lens/dom.js";
import { HeadMap } from "pattern-lens/gallery/headmap.js";
import { highest, scoreText } from "pattern-lens/gallery/scores.js";
import { formatHeads, label } from "pattern-lens/heads.js";
import { scoreTitle } from "pattern-lens/scores.js";
import { Source } from "pattern-lens/source.js";

const DEFAULT_HIGHEST = 20;
const COLOURS = "viridis";

export class ModelsPanel {
  #cards = new Map();
  #boxes = new Map();
  #rows = null;

  /** @param {{model: import("./model.js").GalleryModel, scores: object, change: Function}} app */
  constructor(app) {
    this.app = app;
    this.table = h("div", {});
    this.list = h("div", { class: "models" });
    this.element = h(
      "section",
      { class: "part", "aria-labelledby": "models-title" },
      h("h2", { id: "models-title" }, "Heads"),
      this.table,
      this.list,
    );
  }

  /** What has not changed is not put in place again: the keyboard stays where it is. */
  update() {
    const {
      model: { index, models },
    } = this.app;
    const chosen = new Set(this.app.model.chosenModels());
    for (const [id, card] of this.#cards) if (!models.includes(card.model)) this.#cards.delete(id);
    const several = index.models.length > 1;
    this.table.hidden = !several;
    this.#updateTable(chosen, several);
    const cards = models.filter((model) => chosen.has(model)).map((model) => this.#card(model).element);
    if (cards.length !== this.list.children.length || cards.some((card, i) => card !== this.list.children[i]))
      replace(this.list, cards);
    for (const model of chosen) this.#card(model).update(several);
  }

  #card(model) {
    if (!this.#cards.has(model.id)) this.#cards.set(model.id, new ModelCard(this.app, model));
    return this.#cards.get(model.id);
  }

  #updateTable(chosen, several) {
    const { models } = this.app.model.index;
    const rows = JSON.stringify(models);
    const focused = document.activeElement?.dataset?.model;
    if (rows !== this.#rows) replace(this.table, several && this.#table());
    this.#rows = rows;
    for (const [model, box] of this.#boxes) box.checked = chosen.has(model);
    if (focused) this.table.querySelector(`input[data-model="${CSS.escape(focused)}"]`)?.focus();
  }

  #table() {
    const { index } = this.app.model;
    this.#boxes.clear();
    return h(
      "table",
      { class: "models-table" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["model", "layers", "heads", "width", "prompts"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        index.models.map((model) => this.#row(model)),
      ),
    );
  }

  #row(model) {
    if (model.error)
      return h("tr", {}, h("td", { colspan: 5 }, h("b", {}, model.file), " ", h("span", { class: "error" }, model.error)));
    const box = h("input", {
      type: "checkbox",
      dataset: { model: model.id },
      onchange: (event) => this.#choose(model, event.currentTarget.checked),
    });
    this.#boxes.set(model, box);
    const cells = [model.n_layers, model.n_heads, model.d_model ?? "", model.n_prompts.toLocaleString("en")];
    return h(
      "tr",
      { title: model.file },
      h("td", {}, h("label", { class: "check" }, box, h("bdi", {}, model.title))),
      cells.map((value) => h("td", { class: "number" }, String(value))),
    );
  }

  #choose(model, isChosen) {
    const before = this.app.model.chosenModels().filter((one) => one !== model);
    const all = this.app.model.models;
    const now = isChosen ? all.filter((one) => one === model || before.includes(one)) : before;
    this.app.change({ models: now.map((one) => one.id) });
  }
}

class ModelCard {
  constructor(app, model) {
    this.app = app;
    this.model = model;
    this.held = heldHeads(model);
    this.map = new HeadMap(model, model.layers, (layer, head) => Source.holds(model, layer, head), {
      onChange: (heads) => this.#setHeads(heads),
      onPoint: (layer, head) => this.#point(layer, head),
    });
    const name = `heads-${model.id}`;
    this.title = h("h3", {});
    this.count = h("span", { class: "muted heads-count", "aria-live": "polite" });
    this.text = h("input", {
      id: name,
      class: "heads-text mono",
      type: "text",
      spellcheck: "false",
      autocomplete: "off",
      placeholder: "no heads: try L0-3H2, L5, LxH0",
      "aria-describedby": `${name}-error`,
      oninput: () => this.#typed(),
      onblur: () => this.update(this.isNamed),
    });
    this.error = h("p", { id: `${name}-error`, class: "error", "aria-live": "polite" });
    this.select = h("select", {
      id: `${name}-score`,
      onchange: () => {
        this.scoreName = this.select.value;
        this.update(this.isNamed);
      },
    });
    this.number = h("input", {
      type: "number",
      min: "1",
      max: String(this.held.length),
      value: String(Math.min(DEFAULT_HIGHEST, Math.ceil(this.held.length / 4))),
      "aria-label": "How many heads",
      class: "short",
    });
    this.readout = h("p", { class: "readout muted" });
    this.scoreRow = h(
      "div",
      { class: "row score-row" },
      h("label", { class: "field" }, h("span", {}, "Score"), this.select),
      h(
        "span",
        { class: "field" },
        h("button", { class: "show-highest", onclick: () => this.#showHighest() }, "Show highest"),
        this.number,
      ),
    );
    this.element = h(
      "div",
      { class: "model-card", dataset: { model: model.id } },
      this.title,
      this.scoreRow,
      this.map.element,
      this.readout,
      h("div", { class: "row" }, h("label", { class: "field grow" }, h("span", {}, "Heads"), this.text), this.count),
      this.error,
    );
  }

  update(isNamed) {
    this.isNamed = isNamed;
    this.title.hidden = !isNamed;
    replace(this.title, h("bdi", {}, this.model.title));
    const { text, heads, error } = this.app.model.headsOf(this.model);
    if (document.activeElement !== this.text)
      this.text.value = error ? text : formatHeads(heads, this.model.n_layers, this.model.n_heads);
    this.#showError(error);
    this.count.textContent = `${heads.length.toLocaleString("en")} of ${this.held.length.toLocaleString("en")}`;
    this.#updateScores();
    this.heads = heads;
    this.map.update(heads, this.#score());
    this.#point(null, null);
  }

  #updateScores() {
    const {
      scores,
      model: { state },
    } = this.app;
    const known = scores.known([this.model]);
    this.scoreRow.hidden = known.length === 0;
    const sorted = /^-?score\.(.+)$/s.exec(state.sort)?.[1];
    const names = known.map((score) => score.name);
    if (sorted !== this.sorted && names.includes(sorted)) this.scoreName = sorted;
    this.sorted = sorted;
    if (!names.includes(this.scoreName)) this.scoreName = names[0] ?? null;
    if (names.join() !== this.names)
      replace(
        this.select,
        known.map((score) => option(score.name, scoreTitle(score.name))),
      );
    this.names = names.join();
    if (this.scoreName) this.select.value = this.scoreName;
    this.select.title = known.find((score) => score.name === this.scoreName)?.long_name ?? "";
  }

  /** What colours the map: the mean over prompts of the chosen score. */
  #score() {
    const matrix = this.scoreName && this.app.scores.mean(this.model, this.scoreName);
    if (!matrix) return null;
    const values = this.held
      .map(([layer, head]) => matrix[layer]?.[head])
      .filter((value) => value !== null && value !== undefined);
    const low = Math.min(0, ...values);
    const span = Math.max(...values) - low || 1;
    const colours = table(COLOURS, "linear");
    const value = (layer, head) => matrix[layer]?.[head] ?? null;
    const name = scoreTitle(this.scoreName);
    return {
      value,
      colour: (layer, head) =>
        value(layer, head) === null ? 0xff888888 : colours[Math.round((255 * (value(layer, head) - low)) / span)],
      text: (layer, head) => `mean ${name} ${scoreText(value(layer, head))}`,
    };
  }

  #point(layer, head) {
    const score = this.#score();
    if (layer !== null)
      this.readout.textContent = score ? `${label(layer, head)} · ${score.text(layer, head)}` : label(layer, head);
    else if (score) this.readout.textContent = this.#best();
    else this.readout.textContent = "Click or drag to choose; ⇧ adds, Ctrl takes away.";
  }

  #best() {
    const matrix = this.app.scores.mean(this.model, this.scoreName);
    const best = highest(matrix, this.held, 3).map(([layer, head]) => `${label(layer, head)} ${scoreText(matrix[layer][head])}`);
    return best.length ? `highest mean: ${best.join(", ")}` : "";
  }

  #setHeads(heads) {
    const text = formatHeads(heads, this.model.n_layers, this.model.n_heads);
    // What was being written is replaced by what was clicked.
    this.text.value = text;
    this.app.change(this.app.model.setHeads(this.model, text));
  }

  #typed() {
    this.app.change(this.app.model.setHeads(this.model, this.text.value.trim()));
  }

  #showError(error) {
    this.text.setAttribute("aria-invalid", String(Boolean(error)));
    this.error.textContent = error ? error.message : "";
    this.error.hidden = !error;
  }

  #showHighest() {
    const matrix = this.app.scores.mean(this.model, this.scoreName);
    const count = Math.max(1, Math.floor(Number(this.number.value)) || 1);
    const text = formatHeads(highest(matrix, this.held, count), this.model.n_layers, this.model.n_heads);
    this.text.value = text;
    this.app.change({ ...this.app.model.setHeads(this.model, text), sort: `score.${this.scoreName}` });
  }
}

function heldHeads(model) {
  const heads = Array.from({ length: model.n_heads }, (_, head) => head);
  return model.layers.flatMap((layer) => heads.filter((head) => Source.holds(model, layer, head)).map((head) => [layer, head]));
}
