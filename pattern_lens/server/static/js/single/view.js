/** The single-pattern view: the parts of the page, and how they hang together. */
import { h, replace } from "pattern-lens/dom.js";
import { Heatmap } from "pattern-lens/heatmap.js";
import { showNotices } from "pattern-lens/notices.js";
import { App } from "pattern-lens/single/app.js";
import { Figures } from "pattern-lens/single/figures.js";
import { HeadMap } from "pattern-lens/single/head_map.js";
import { loadScores } from "pattern-lens/single/head_scores.js";
import { listenToKeys } from "pattern-lens/single/keyboard.js";
import { Legend, Looks } from "pattern-lens/single/looks.js";
import { titleOf } from "pattern-lens/single/names.js";
import { Navigation, headBeside, layerBeside } from "pattern-lens/single/navigation.js";
import { Prompts } from "pattern-lens/single/prompts.js";
import { Ranks } from "pattern-lens/single/ranks.js";
import { Readout } from "pattern-lens/single/readout.js";
import { Share } from "pattern-lens/single/share.js";
import { Similar } from "pattern-lens/single/similar.js";
import { TokensPanel } from "pattern-lens/single/tokens_panel.js";
import { unturned } from "pattern-lens/tokens.js";

const LEAST_HEIGHT = 300;
const BELOW = 44;

/**
 * Shows one pattern.
 * @param {HTMLElement} root
 * @param {import("pattern-lens/source.js").Source} source
 * @param {object} state of state.js
 * @returns {() => void} takes the view away
 */
export function mountSingle(root, source, state) {
  const view = new SingleView(root, source, state);
  view.app.load();
  return () => view.unmount();
}

class SingleView {
  constructor(root, source, state) {
    this.root = root;
    this.app = new App(source, state, this);
    const { app } = this;
    const { cursor } = app;
    this.heatmap = new Heatmap({ onHover: (cell) => cursor.hover(cell), onPick: (cell) => cursor.pick(cell) });
    this.parts = {
      prompts: new Prompts(app),
      navigation: new Navigation(app),
      looks: new Looks(app),
      share: new Share(app),
      legend: new Legend(),
      readout: new Readout(),
      tokens: new TokensPanel(cursor),
      ranks: new Ranks(cursor),
      heads: new HeadMap(app),
      similar: new Similar(app),
      figures: new Figures(app),
    };
    this.pointed = [this.heatmap, this.parts.readout, this.parts.tokens, this.parts.ranks];
    this.write();
    this.listen();
  }

  write() {
    const { prompts, navigation, looks, share, legend, readout, tokens, ranks, heads, similar, figures } = this.parts;
    this.title = h("h1", { class: "single-title" });
    this.stage = h("section", { class: "single-stage", "aria-label": "pattern" }, this.heatmap.element, legend.element);
    const middle = h("div", { class: "single-middle" }, readout.element, ranks.element, tokens.element);
    const side = h("aside", { class: "single-side" }, heads.element, similar.element, figures.element);
    this.bar = h("div", { class: "single-bar" }, prompts.element, navigation.element, looks.element, share.element);
    this.main = h("div", { class: "single-main" }, this.stage, middle, side);
    this.message = h("div", { class: "message", role: "alert", hidden: true });
    this.element = h("div", { class: "single is-loading" }, this.title, this.bar, this.message, this.main);
    replace(this.root, this.element);
    this.root.classList.add("has-single");
  }

  listen() {
    const redraw = () => this.layOut();
    this.stopKeys = listenToKeys({
      move: (query, key) => this.move(query, key),
      jump: (where, isFar) => this.jump(where, isFar),
      press: (key) => this.press(key),
    });
    this.sizes = new ResizeObserver(redraw);
    this.sizes.observe(this.stage);
    this.themes = new MutationObserver(redraw);
    this.themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", redraw);
    window.addEventListener("resize", redraw);
    this.stopWatching = this.app.source.watch((index, error) => this.changed(index, error));
    this.unlisten = () => {
      this.dark.removeEventListener("change", redraw);
      window.removeEventListener("resize", redraw);
    };
  }

  unmount() {
    this.app.stop();
    for (const topic of ["server", "details"]) showNotices(topic, []);
    this.stopKeys();
    this.stopWatching();
    this.parts.tokens.stop();
    this.sizes.disconnect();
    this.themes.disconnect();
    this.unlisten();
    this.root.classList.remove("has-single");
    this.element.remove();
  }

  /** Files have grown, come or gone, or the server does not answer. */
  changed(index, error) {
    showNotices("server", error ? [error.message] : [], { isError: true });
    if (!index) return;
    const { found } = this.app;
    const now = index.models.find(({ id }) => id === found?.model.id);
    if (now && now.file_id === found.model.file_id && !now.error) this.parts.prompts.reload();
    else this.app.load();
  }

  /** Shows a view of the app: the heat map and what is known with it. */
  show(view) {
    this.message.hidden = true;
    this.main.hidden = false;
    this.element.classList.remove("is-loading", "has-failed", "has-nothing");
    const { pattern, queryTokens, keyTokens, map, scale } = view;
    document.title = titleOf(view);
    this.title.textContent = titleOf(view);
    for (const part of Object.values(this.parts)) part.update(view);
    const room = this.room();
    this.laidOut = this.looks(room);
    this.heatmap.show({ pattern, queryTokens, keyTokens, map, scale, name: `attention pattern ${titleOf(view)}` }, room);
  }

  point(cursor) {
    this.heatmap.point(cursor.cell);
    for (const part of this.pointed.slice(1)) part.point(cursor);
  }

  /** What comes after the heat map. A part that fails leaves the others alone. */
  async details(view) {
    const { heads, similar, figures, prompts } = this.parts;
    const scores = loadScores(this.app.source, view.model.id, view.prompt.key).then(
      (found) => this.app.view === view && heads.show(found),
    );
    const loads = [scores, similar.load(view), prompts.load(), figures.load(view)];
    const reasons = (await Promise.allSettled(loads)).map(({ reason }) => reason).filter(Boolean);
    for (const reason of reasons) if (reason.name !== "SourceError") console.error(reason);
    if (this.app.view !== view) return;
    // What an export leaves out is no news; anything else is.
    showNotices(
      "details",
      reasons.filter(({ status }) => status !== 404).map(({ message }) => message),
      { isError: true },
    );
    this.element.dataset.details = view.label;
  }

  /** Shows a sentence in place of the pattern; with a place, the way on to others stays. */
  fail(message, place) {
    this.element.classList.toggle("has-failed", !place);
    this.element.classList.add("has-nothing");
    this.element.classList.remove("is-loading");
    this.main.hidden = true;
    this.message.hidden = false;
    replace(this.message, h("b", null, "Nothing to show here"), unturned(message));
    if (place) {
      for (const part of [this.parts.prompts, this.parts.navigation]) part.update(place);
      this.parts.prompts.load().catch(() => {});
    }
    document.documentElement.dataset.ready = "single";
  }

  /** What the window has for the heat map. */
  room() {
    const top = this.stage.getBoundingClientRect().top + this.root.scrollTop;
    return { width: this.stage.clientWidth, height: Math.max(LEAST_HEIGHT, innerHeight - top - BELOW) };
  }

  /** Draws the heat map anew if the window or the theme changed. */
  layOut() {
    if (this.main.hidden) return;
    const room = this.room();
    const before = this.laidOut;
    this.laidOut = this.looks(room);
    if (this.laidOut !== before) this.heatmap.layOut(room);
  }

  looks({ width, height }) {
    const ground = getComputedStyle(document.documentElement).colorScheme;
    return `${width} ${height} ${devicePixelRatio} ${ground} ${this.dark.matches}`;
  }

  move(query, key) {
    const { cursor } = this.app;
    if (cursor.cell) cursor.lock({ query: cursor.cell.query + query, key: cursor.cell.key + key });
  }

  jump(where, isFar) {
    const { cursor, view } = this.app;
    if (!cursor.cell) return;
    const { query, key } = cursor.cell;
    if (isFar) cursor.lock({ query: where === "Home" ? 0 : view.pattern.nQuery - 1, key });
    else cursor.lock({ query, key: where === "Home" ? 0 : view.pattern.width(query) - 1 });
  }

  /** @returns {boolean} whether the key means something */
  press(name) {
    const { app } = this;
    const { cursor } = app;
    const { navigation, prompts, looks } = this.parts;
    if (!app.view) return false;
    const goTo = (changes) => changes && app.go(changes);
    const actions = {
      Escape: () => cursor.unlock(),
      Enter: () => cursor.cell && cursor.pick(cursor.cell),
      "[": () => goTo(navigation.to(headBeside(app.here(), -1))),
      "]": () => goTo(navigation.to(headBeside(app.here(), 1))),
      "{": () => goTo(navigation.to(layerBeside(app.here(), -1))),
      "}": () => goTo(navigation.to(layerBeside(app.here(), 1))),
      p: () => goTo(prompts.to(-1)),
      n: () => goTo(prompts.to(1)),
      a: () => navigation.toggleMean(),
      b: () => looks.toggleBos(),
      l: () => looks.toggleScale(),
      g: () => navigation.box.focus(),
      "/": () => prompts.open(),
    };
    if (!Object.hasOwn(actions, name)) return false;
    actions[name]();
    return true;
  }
}
