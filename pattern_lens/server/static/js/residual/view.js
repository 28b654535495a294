/** The residual view: the logit lens, and what adds up to the logit of a chosen token. */
import { h, option, replace } from "pattern-lens/dom.js";
import { isTyping } from "pattern-lens/header.js";
import { showNotices } from "pattern-lens/notices.js";
import { App } from "pattern-lens/residual/app.js";
import { Bars } from "pattern-lens/residual/bars.js";
import { Cell } from "pattern-lens/residual/cell.js";
import { Chooser } from "pattern-lens/residual/chooser.js";
import { Curve } from "pattern-lens/residual/curve.js";
import { LensTable } from "pattern-lens/residual/lens_table.js";
import { HeadMap } from "pattern-lens/residual/map.js";
import { closure, placeOf, whatOf } from "pattern-lens/residual/words.js";
import { isPlain } from "pattern-lens/single/links.js";
import { Prompts } from "pattern-lens/single/prompts.js";
import { address } from "pattern-lens/state.js";
import { shown, unturned } from "pattern-lens/tokens.js";

const LIVE_ONLY =
  "What adds up to the logit of a chosen token is worked out when it is asked for, by a running server: open the file with pattern-lens serve.";

/**
 * Shows the residual stream of a prompt.
 * @param {HTMLElement} root
 * @param {import("pattern-lens/source.js").Source} source
 * @param {object} state of state.js
 * @param {(page: string, state: object) => void} navigate
 * @returns {() => void} takes the view away
 */
export function mountResidual(root, source, state, navigate) {
  const view = new ResidualView(root, source, state, navigate);
  view.app.load();
  return () => view.unmount();
}

class ResidualView {
  constructor(root, source, state, navigate) {
    this.root = root;
    this.navigate = navigate;
    this.app = new App(source, state, this);
    const { app } = this;
    const headLink = (changes, attributes, ...children) => this.headLink(changes, attributes, ...children);
    this.prompts = new Prompts(app);
    this.answer = new Chooser(app, "answer");
    this.distractor = new Chooser(app, "distractor");
    this.cell = new Cell(app);
    this.lens = new LensTable(app, { onHover: (cell) => this.cell.hover(cell) });
    this.bars = new Bars(app, headLink);
    this.map = new HeadMap(headLink);
    this.curve = new Curve();
    this.write();
    this.onKey = (event) => this.press(event);
    document.addEventListener("keydown", this.onKey);
    this.stopWatching = source.watch((index, error) => this.changed(index, error));
  }

  write() {
    this.title = h("h1", { class: "hidden-text" });
    this.models = h("select", { "aria-label": "model", onchange: (event) => this.app.go({ model: event.target.value }) });
    this.toPattern = this.headLink({}, { class: "button" }, "Patterns");
    this.bar = h(
      "div",
      { class: "residual-bar" },
      this.prompts.element,
      this.models,
      h("div", { class: "row token-fields" }, this.answer.element, this.distractor.element),
      this.toPattern,
    );
    this.heading = h("h2", { class: "sum-title" });
    this.sum = h("p", { class: "sum", id: "closure", role: "status" });
    this.parts = h("div", { class: "residual-parts" }, this.bars.element, this.map.element, this.curve.element);
    this.main = h(
      "div",
      { class: "residual-main" },
      h("div", { class: "residual-lens" }, this.lens.element, this.cell.element),
      h("section", { class: "residual-sum", "aria-label": "attribution" }, this.heading, this.sum, this.parts),
    );
    this.message = h("div", { class: "message", role: "alert", hidden: true });
    this.element = h("div", { class: "residual single is-loading" }, this.title, this.bar, this.message, this.main);
    replace(this.root, this.element);
    this.root.classList.add("has-residual");
  }

  unmount() {
    this.app.stop();
    showNotices("server", []);
    this.stopWatching();
    this.lens.stop();
    document.removeEventListener("keydown", this.onKey);
    this.root.classList.remove("has-residual");
    this.element.remove();
  }

  /** A link to a pattern of this prompt. */
  headLink(changes, attributes, ...children) {
    const target = () => ({ ...this.app.state, cell: null, head: this.firstHead(), ...changes });
    const link = h("a", { ...attributes, href: address("single", target()) }, ...children);
    link.addEventListener("click", (event) => {
      if (!isPlain(event)) return;
      event.preventDefault();
      this.navigate("single", target());
    });
    link.retarget = () => link.setAttribute("href", address("single", target()));
    return link;
  }

  firstHead() {
    const { model } = this.app.view ?? {};
    return model?.layers.length ? `${model.id}.L${model.layers[0]}.H0` : null;
  }

  changed(index, error) {
    showNotices("server", error ? [error.message] : [], { isError: true });
    const { view } = this.app;
    if (!index || !view) return;
    const now = index.models.find(({ id }) => id === view.model.id);
    if (now?.file_id === view.model.file_id && !now.error && this.app.found) this.prompts.reload();
    else this.app.load();
  }

  place(view) {
    const { models, model, prompt } = view;
    this.bar.hidden = false;
    document.title = `Residual stream · ${model.name} · ${prompt.hash}`;
    this.title.textContent = document.title;
    const usable = models.filter((each) => !each.error);
    this.models.hidden = usable.length < 2;
    replace(
      this.models,
      usable.map((each) => option(each.id, each.id, each.id === model.id)),
    );
    this.prompts.update(view);
    this.prompts.load().catch(() => {});
    this.toPattern.hidden = !model.patterns;
    this.toPattern.retarget();
  }

  /** Shows a view of the app; the lens first, then what a server works out. */
  async show(view, isNow) {
    this.message.hidden = true;
    this.main.hidden = false;
    this.element.classList.remove("is-loading", "has-nothing");
    this.place(view);
    for (const chooser of [this.answer, this.distractor]) chooser.element.hidden = !view.isLive;
    this.bars.update(view);
    await Promise.all([this.lens.update(view), this.cell.update(view)]);
    if (!isNow()) return;
    if (view.isLive) await this.showParts(view, isNow);
    else this.saySentence(LIVE_ONLY);
  }

  async showParts(view, isNow) {
    const { source } = this.app;
    this.parts.classList.add("is-old");
    let found;
    try {
      const question = await this.app.question(view);
      const ask = (unit) => (view.about.units[unit] === null ? source.attribution(view.model.id, view.prompt.key, { ...question, unit }) : null);
      const tokens = source.lensOfTokens(view.model.id, view.prompt.key, question);
      found = await Promise.all([ask(view.unit), ask("head"), ask("layer"), tokens]);
    } catch (error) {
      if (!isNow()) return;
      if (error.name !== "SourceError") throw error;
      for (const chooser of [this.answer, this.distractor]) chooser.refuse(error.message);
      this.saySentence(error.message);
      return;
    }
    if (!isNow()) return;
    const [parts, heads, streams, tokens] = found;
    this.parts.classList.remove("is-old");
    this.cell.tokens(tokens);
    this.answer.show(this.app.state.answer ? tokens.answer : null);
    this.distractor.show(tokens.distractor);
    this.answer.box.placeholder = `most probable: ${shown(tokens.answer.text)}`;
    if (!parts) {
      this.saySentence(view.about.units[view.unit]);
      return;
    }
    this.sayParts(view, parts, heads, streams);
  }

  sayParts(view, parts, heads, streams) {
    this.parts.hidden = false;
    replace(
      this.heading,
      "What adds up to the logit of ",
      h("bdi", null, whatOf(parts)),
      " at ",
      h("bdi", null, placeOf(view.prompt, view.position)),
    );
    this.sum.classList.remove("error");
    this.sum.textContent = closure(parts, view.about.softcap);
    Object.assign(this.sum.dataset, { logit: parts.logit, error: parts.closure_error ?? "" });
    this.bars.show(parts);
    this.map.element.hidden = !heads;
    this.curve.element.hidden = !streams;
    if (heads) this.map.show(view, heads);
    if (streams) this.curve.show(streams);
  }

  /** A sentence in place of the parts. */
  saySentence(sentence) {
    this.parts.hidden = true;
    this.heading.textContent = "What adds up to a logit";
    this.sum.textContent = unturned(sentence);
  }

  /** A sentence in place of everything; with a place, the way to other prompts stays. */
  fail(message, view) {
    this.element.classList.remove("is-loading");
    this.element.classList.add("has-nothing");
    this.main.hidden = true;
    this.message.hidden = false;
    replace(this.message, h("b", null, "Nothing to show here"), unturned(message));
    if (view) this.place(view);
    else this.bar.hidden = true;
    for (const chooser of [this.answer, this.distractor]) chooser.element.hidden = true;
  }

  press(event) {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey || !this.app.view) return;
    const step = { n: 1, p: -1 }[event.key];
    const to = step && this.prompts.to(step);
    if (to) this.app.go(to);
    if (event.key === "/") {
      event.preventDefault();
      this.prompts.open();
    }
  }
}
