/** A map of all heads, layer × head, coloured by a stored score: each cell is a link to its head. */
import { h, option, replace } from "pattern-lens/dom.js";
import { css, names, table } from "pattern-lens/colours.js";
import { formatPlace, label } from "pattern-lens/heads.js";
import { scoreTitle } from "pattern-lens/scores.js";
import { brief, extent, firstScore, ordinal, rankOf } from "pattern-lens/single/head_scores.js";
import { link, point } from "pattern-lens/single/links.js";
import { hasHead } from "pattern-lens/single/resolve.js";

const ROOM = 272;
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

export class HeadMap {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.cells = new Map();
    this.grid = h("div", { class: "head-grid", role: "group", "aria-label": "heads: layers downwards, heads to the right" });
    this.chooser = h("select", {
      id: "score-of-map",
      "aria-label": "score that colours the map",
      onchange: (event) => this.colourBy(event.target.value),
    });
    this.says = h("p", { class: "head-says muted", role: "status" });
    this.list = h("ul", { class: "scores" });
    for (const name of ["pointerover", "focusin"]) this.grid.addEventListener(name, (event) => this.say(event.target));
    this.grid.addEventListener("pointerleave", () => this.say(null));
    this.grid.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "section",
      { class: "single-panel", "aria-label": "heads" },
      h("header", { class: "panel-head" }, h("h2", null, "Heads"), this.chooser),
      this.grid,
      this.says,
      this.list,
    );
  }

  update(view) {
    const isNew = this.view?.model.id !== view.model.id;
    this.view = view;
    if (isNew) this.build();
    for (const [name, cell] of this.cells) {
      const isHere = name === view.label || (view.head === "x" && (view.layer === "x" || cell.place.layer === view.layer));
      if (isHere) cell.setAttribute("aria-current", "page");
      else cell.removeAttribute("aria-current");
      cell.tabIndex = name === view.label ? 0 : -1;
      if (cell.place.isHeld) point(this.app, cell, { head: formatPlace(view.model.id, cell.place.layer, cell.place.head) });
    }
    if (!this.cells.has(view.label)) this.cells.values().next().value.tabIndex = 0;
    if (this.scores) this.writeScores();
  }

  build() {
    const { model } = this.view;
    const size = Math.max(5, Math.min(28, Math.floor(ROOM / model.n_heads) - 1));
    this.grid.style.setProperty("--cell", `${size}px`);
    this.grid.style.setProperty("--heads", String(model.n_heads));
    this.cells.clear();
    for (const layer of model.layers)
      for (let head = 0; head < model.n_heads; head++) this.cells.set(label(layer, head), this.cell(model, layer, head));
    replace(this.grid, [...this.cells.values()]);
    this.scores = null;
    this.chooser.hidden = true;
    replace(this.list);
  }

  cell(model, layer, head) {
    const cell = link(this.app, null, { class: "head-cell", "aria-label": label(layer, head) });
    cell.place = { layer, head, isHeld: hasHead(model, layer, head) };
    cell.addEventListener("mousedown", (event) => event.button === 0 && event.preventDefault());
    return cell;
  }

  show(scores) {
    this.scores = scores;
    this.chosen = scores.find(({ name }) => name === this.chosen?.name) ?? firstScore(scores);
    this.chooser.hidden = !scores.length;
    replace(
      this.chooser,
      scores.map(({ name }) => option(name, scoreTitle(name), name === this.chosen?.name)),
    );
    this.colour();
    this.writeScores();
    this.say(null);
  }

  colourBy(name) {
    this.chosen = this.scores.find((score) => score.name === name);
    this.chooser.value = name;
    this.colour();
    this.writeScores();
    this.say(null);
  }

  colour() {
    if (!this.chosen) return;
    const { min, max } = extent(this.chosen);
    const isSigned = min < 0;
    const colours = table(isSigned ? names("diverging")[0] : names("sequential")[0], "linear");
    const most = Math.max(Math.abs(min), Math.abs(max)) || 1;
    for (const cell of this.cells.values()) {
      const value = this.chosen.values[cell.place.layer]?.[cell.place.head] ?? null;
      const level = isSigned ? 0.5 + value / (2 * most) : value / most;
      cell.style.backgroundColor = value === null ? "" : css(colours[Math.round(255 * level)]);
      cell.setAttribute(
        "aria-label",
        `${label(cell.place.layer, cell.place.head)}${value === null ? "" : ` ${scoreTitle(this.chosen.name)} ${brief(value)}`}`,
      );
    }
  }

  /** The head under the pointer, or what the colours are of. */
  say(target) {
    const place = target?.place;
    if (place) {
      const found = this.chosen && rankOf(this.chosen, place);
      this.says.textContent = `${label(place.layer, place.head)}${found ? ` · ${brief(found.value)} · ${ordinal(found.rank)} of ${found.of}` : ""}${place.isHeld ? "" : " · not in this export"}`;
    } else if (this.chosen) {
      const { min, max } = extent(this.chosen);
      this.says.textContent = `${brief(min)} – ${brief(max)}${this.chosen.isMean ? `, mean over ${this.chosen.nPrompts.toLocaleString("en")} prompts` : ", in this prompt"}`;
    } else this.says.textContent = "layers downwards, heads to the right";
  }

  writeScores() {
    const { view, scores } = this;
    if (view.head === "x") {
      replace(
        this.list,
        h("li", { class: "muted" }, scores.length ? "Scores are of single heads, not of means." : "No scores are stored."),
      );
      return;
    }
    const rows = scores.map((score) => this.scoreRow(score, rankOf(score, view)));
    replace(this.list, rows.length ? rows : h("li", { class: "muted" }, "No scores are stored in this file."));
  }

  scoreRow(score, found) {
    const { min, max } = extent(score);
    const share = found ? Math.abs(found.value) / (Math.max(Math.abs(min), Math.abs(max)) || 1) : 0;
    const bar = h("span", { class: "bar", style: { width: `${100 * share}%` } });
    const title = [score.title, score.units && `in ${score.units}`, score.isMean && "mean over prompts"]
      .filter(Boolean)
      .join(", ");
    const isChosen = score.name === this.chosen?.name;
    const text = found ? `${ordinal(found.rank)} of ${found.of}` : "no number";
    const button = h(
      "button",
      {
        type: "button",
        title: `${title || score.name}: colour the map by it`,
        "aria-pressed": String(isChosen),
        onclick: () => this.colourBy(score.name),
      },
      bar,
      h("span", { class: "score-name" }, scoreTitle(score.name)),
      h("span", { class: "score-value" }, found ? brief(found.value) : "–"),
      h("span", { class: "muted score-rank" }, text),
    );
    return h("li", { class: found?.rank === 1 ? "is-first" : null, dataset: { score: score.name } }, button);
  }

  onKey(event) {
    const step = STEPS[event.key];
    const place = event.target.place;
    if (!step || !place) return;
    event.preventDefault();
    event.stopPropagation();
    const { layers } = this.view.model;
    this.cells.get(label(layers[layers.indexOf(place.layer) + step[0]], place.head + step[1]))?.focus();
  }
}
