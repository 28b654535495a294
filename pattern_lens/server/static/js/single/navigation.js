/** The way to other heads and prompts: neighbours, a head by its name, means over heads. */
import { h, icon, option, replace } from "pattern-lens/dom.js";
import { formatPlace, label, parseHeads, parseLabel } from "pattern-lens/heads.js";
import { link, point } from "pattern-lens/single/links.js";
import { hasHead, headsOf, meansOf, nearestHead } from "pattern-lens/single/resolve.js";

const BACK = "M10 3 5 8l5 5";
const FORTH = "m6 3 5 5-5 5";
const UP = "m3 10 5-5 5 5";
const DOWN = "m3 6 5 5 5-5";

/** The head before or after in the order stored; a mean stands before the first head of its layer. */
export function headBeside(view, step) {
  const heads = headsOf(view.model);
  const at = heads.findIndex(({ layer, head }) => layer === view.layer && head === view.head);
  if (at >= 0) return heads[at + step] ?? null;
  const first = heads.findIndex(({ layer }) => layer === view.layer || view.layer === "x");
  return heads[step > 0 ? first : first - 1] ?? null;
}

/** The same head, or mean, of the layer before or after. */
export function layerBeside({ model, layer, head }, step) {
  if (layer === "x") return null;
  const to = model.layers[model.layers.indexOf(layer) + step];
  if (to === undefined) return null;
  return hasHead(model, to, head) ? { layer: to, head } : nearestHead(model, { layer: to, head });
}

export class Navigation {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.steps = {
      layerBefore: this.step(UP, "previous layer  {"),
      layerAfter: this.step(DOWN, "next layer  }"),
      headBefore: this.step(BACK, "previous head  ["),
      headAfter: this.step(FORTH, "next head  ]"),
    };
    this.box = h("input", {
      id: "head-box",
      class: "head-box",
      type: "text",
      size: 7,
      spellcheck: "false",
      autocomplete: "off",
      "aria-label": "head, such as L3H5",
      title: "write a head, such as L3H5; L3Hx is the mean of a layer, LxHx of all  (g)",
    });
    this.box.addEventListener("change", () => this.read());
    this.box.addEventListener("focus", () => this.box.select());
    this.box.addEventListener("keydown", (event) => event.key === "Escape" && this.leave());
    this.error = h("span", { class: "error", role: "alert" });
    this.means = h("span", { class: "means" });
    this.models = h("select", { "aria-label": "model", onchange: (event) => this.toModel(event.target.value) });
    this.element = h(
      "div",
      { class: "bar-group", role: "group", "aria-label": "head" },
      this.models,
      h("span", { class: "joined" }, this.steps.layerBefore, this.steps.layerAfter),
      h("span", { class: "joined" }, this.steps.headBefore, this.box, this.steps.headAfter),
      this.means,
      this.error,
    );
  }

  step(path, title) {
    return link(this.app, null, { class: "button step", title, "aria-label": title.split("  ")[0] }, icon(path));
  }

  update(view) {
    this.view = view;
    this.error.textContent = "";
    this.box.value = view.label;
    point(this.app, this.steps.headBefore, this.to(headBeside(view, -1)));
    point(this.app, this.steps.headAfter, this.to(headBeside(view, 1)));
    point(this.app, this.steps.layerBefore, this.to(layerBeside(view, -1)));
    point(this.app, this.steps.layerAfter, this.to(layerBeside(view, 1)));
    replace(
      this.means,
      meansOf(view.model, view.layer).map((mean) => this.mean(mean)),
    );
    this.writeModels(view);
  }

  mean({ layer, head }) {
    const title = layer === "x" ? "mean over all heads" : `mean over the heads of layer ${layer}  (a)`;
    const isHere = layer === this.view.layer && head === this.view.head;
    return link(
      this.app,
      this.to({ layer, head }),
      { class: "button", title, "aria-current": isHere ? "page" : null },
      label(layer, head),
    );
  }

  writeModels({ models, model }) {
    const shown = models.filter((each) => !each.error && each.patterns);
    this.models.hidden = shown.length < 2;
    replace(
      this.models,
      shown.map((each) => option(each.id, each.id, each.id === model.id)),
    );
  }

  to(place) {
    return place && { head: formatPlace(this.view.model.id, place.layer, place.head) };
  }

  /** Another model with the same prompt, where it has it, and the same head. */
  async toModel(id) {
    const { prompts } = await this.app.source.prompts(id);
    const isThere = prompts.some(({ hash }) => hash === this.view.prompt.hash);
    this.app.go({ head: formatPlace(id, this.view.layer, this.view.head), ...(isThere ? {} : { prompt: null }) });
  }

  toggleMean() {
    const { view } = this;
    const isMean = view.head === "x";
    const to = isMean ? nearestHead(view.model, this.before ?? view) : { layer: view.layer, head: "x" };
    if (!isMean) this.before = { layer: view.layer, head: view.head };
    if (hasHead(view.model, to.layer, to.head)) this.app.go(this.to(to));
  }

  read() {
    const { model } = this.view;
    const text = this.box.value.trim().replace(/l/i, "L").replace(/h/i, "H").replace(/[*X]/g, "x");
    const mean = parseLabel(text);
    if (mean && hasHead(model, ...mean)) return this.found(mean);
    const { heads, error } = parseHeads(text, model.n_layers, model.n_heads);
    const [first] = heads.filter((head) => hasHead(model, ...head));
    if (first && !error) return this.found(first);
    this.error.textContent = error?.message ?? `“${text}” is not stored here`;
    this.box.setAttribute("aria-invalid", "true");
    return undefined;
  }

  found([layer, head]) {
    this.box.removeAttribute("aria-invalid");
    this.error.textContent = "";
    this.box.blur();
    this.box.value = label(layer, head);
    this.app.go(this.to({ layer, head }));
  }

  leave() {
    this.box.value = this.view.label;
    this.error.textContent = "";
    this.box.removeAttribute("aria-invalid");
    this.box.blur();
  }
}
