/** What figure functions drew of the head, its layer and its prompt; failures are shown as failures. */
import { h, replace } from "pattern-lens/dom.js";

const PICTURES = new Set(["svg", "png", "jpg", "jpeg", "gif", "webp", "avif"]);

function isOf(figure, { layer, head }) {
  if (figure.layer === null) return true;
  return figure.layer === layer && (figure.head === null || figure.head === head);
}

function scope({ layer, head }, isOfPrompt) {
  const place = head !== null ? "" : layer !== null ? `layer ${layer}` : isOfPrompt ? "whole prompt" : "whole file";
  return isOfPrompt || head === null ? place : "all prompts";
}

export class Figures {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.list = h("div", { class: "figures" });
    this.element = h(
      "section",
      { class: "single-panel", "aria-label": "figures", hidden: true },
      h("header", { class: "panel-head" }, h("h2", null, "Figures")),
      this.list,
    );
  }

  update() {
    this.element.classList.add("is-old");
  }

  async load(view) {
    const { source } = this.app;
    const [{ functions }, ofPrompt, ofNone] = await Promise.all([
      source.functions(view.model.id),
      source.figures(view.model.id, view.prompt.key),
      source.figures(view.model.id, null),
    ]);
    if (this.app.view !== view) return;
    const docs = new Map(functions.map((each) => [each.name, each]));
    const found = [...ofPrompt.figures.map((figure) => [figure, true]), ...ofNone.figures.map((figure) => [figure, false])];
    const shown = found.filter(([figure]) => isOf(figure, view));
    replace(
      this.list,
      shown.map(([figure, isOfPrompt]) => this.figure(figure, isOfPrompt, docs.get(figure.name), view)),
    );
    this.element.hidden = !shown.length;
    this.element.classList.remove("is-old");
  }

  figure(figure, isOfPrompt, about, view) {
    const of = scope(figure, isOfPrompt);
    const name = h("span", { class: "figure-name" }, figure.name);
    const caption = h("figcaption", { title: about?.doc ?? "" }, name, of && h("span", { class: "muted" }, of));
    return h(
      "figure",
      { class: figure.error === null ? "figure" : "figure has-failed", dataset: { figure: figure.name } },
      this.content(figure, view),
      caption,
    );
  }

  content(figure, view) {
    if (figure.error !== null) return h("p", { class: "why-failed", role: "note" }, h("b", null, "failed"), ` ${figure.error}`);
    const href = this.app.source.url(figure.href);
    const open = (child) => h("a", { href, target: "_blank", rel: "noopener", title: `open ${figure.name} alone` }, child);
    if (!PICTURES.has(figure.format)) return open(`open ${figure.format}`);
    const picture = h("img", { src: href, alt: `${figure.name} of ${view.label}`, loading: "lazy" });
    picture.addEventListener(
      "error",
      () => replace(picture.parentElement, "This figure cannot be shown; open it alone to see why."),
      { once: true },
    );
    return open(picture);
  }
}
