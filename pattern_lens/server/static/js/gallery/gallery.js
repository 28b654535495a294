/** Everything of a gallery together: what is chosen becomes a list of pictures, the list becomes tiles. */
import { names } from "pattern-lens/colours.js";
import { h, replace } from "pattern-lens/dom.js";
import { borders, showLegend } from "pattern-lens/gallery/borders.js";
import { Collection } from "pattern-lens/gallery/collection.js";
import { Describer } from "pattern-lens/gallery/describer.js";
import { emptiness } from "pattern-lens/gallery/empty.js";
import { FunctionsPanel } from "pattern-lens/gallery/functions.js";
import { Grid } from "pattern-lens/gallery/grid.js";
import { sections, sortItems } from "pattern-lens/gallery/items.js";
import { GalleryModel } from "pattern-lens/gallery/model.js";
import { ModelsPanel } from "pattern-lens/gallery/models.js";
import { Painter } from "pattern-lens/gallery/painter.js";
import { PromptsPanel } from "pattern-lens/gallery/prompts.js";
import { Scores } from "pattern-lens/gallery/scores.js";
import { Toolbar } from "pattern-lens/gallery/toolbar.js";
import { Tooltip } from "pattern-lens/gallery/tooltip.js";
import { formatPlace } from "pattern-lens/heads.js";
import { showNotices } from "pattern-lens/notices.js";
import { replaceState } from "pattern-lens/state.js";
import { unturned } from "pattern-lens/tokens.js";

/** Changes that need no other pictures, only another look of them. */
const LOOKS = new Set(["size", "captions", "border", "cmap", "scale", "bos"]);
/** Changes after which the first picture is what is looked for; another prompt is looked at in the same place. */
const REORDERS = ["sort", "heads", "functions", "models"];
const THIN = 1;
const THICK = 3;
// Numbers of a few prompts are fetched for who hovers; those of many only for who sorts by them.
const HOVERED_PROMPTS = 4;

export class Gallery {
  #turn = 0;
  #isArranged = false;
  #isClosed = false;
  #firstDrawn = null;
  #panelsOf = null;

  constructor(root, source, index, state, navigate) {
    Object.assign(this, { root, source, navigate });
    this.model = new GalleryModel(source, index, state);
    this.scores = new Scores(source);
    this.collection = new Collection(source, this.model, this.scores);
    this.describer = new Describer(this.model, this.scores, this.collection);
    this.whenDrawn = new Promise((resolve) => {
      this.#firstDrawn = resolve;
    });
    this.#build();
    showNotices("files", index.notes);
    this.refresh();
  }

  get state() {
    return this.model.state;
  }

  shownPrompts() {
    return [...new Map(this.collection.shown.flatMap(({ prompts }) => prompts).map((prompt) => [prompt.hash, prompt])).values()];
  }

  /** Another choice, or another look: shown at once, and in the address. @param {{isQuiet?: boolean}} [options] quiet: other pictures are not needed */
  change(patch, { isQuiet = false } = {}) {
    Object.assign(this.state, patch);
    replaceState(this.state);
    if (isQuiet) return;
    const changed = Object.keys(patch);
    if (changed.some((name) => REORDERS.includes(name))) this.#startTop = 0;
    if (changed.length && changed.every((name) => LOOKS.has(name))) this.#arrange(false);
    else this.refresh();
  }

  /** Collects what is chosen, then shows it, unless something else was chosen meanwhile. */
  async refresh() {
    const turn = ++this.#turn;
    this.#isArranged = false;
    this.#busy();
    try {
      const coming = this.collection.collect();
      this.models.update();
      await coming;
    } catch (error) {
      if (turn === this.#turn) this.#showFailure(error);
      return;
    }
    if (turn !== this.#turn || this.#isClosed) return;
    this.#arrange(true);
    this.prompts.update();
    this.functions.update();
    this.#afterwards(turn);
  }

  /** New files or prompts; what is chosen stays chosen. */
  async setIndex(index) {
    this.model.setIndex(index);
    this.model.lists.clear();
    this.scores.forget();
    this.#panelsOf = null;
    showNotices("files", index.notes);
    await this.refresh();
  }

  scrollTo(top) {
    this.#startTop = top;
  }

  onKey(event, isWriting) {
    if (isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "[") this.prompts.step(-1);
    if (event.key === "]") this.prompts.step(1);
  }

  close() {
    this.#isClosed = true;
    this.#turn += 1;
    this.painter.close();
    this.grid.close();
    this.prompts.close();
  }

  /** Where the next pictures are scrolled to; null: where they are. */
  #startTop = null;

  #build() {
    this.grid = new Grid({ onTiles: () => this.#tilesChanged(), onOpen: (item) => this.#open(item) });
    this.painter = new Painter({
      source: this.source,
      grid: this.grid,
      onBusy: () => this.#busy(),
      onDone: (n) => this.#done(n),
    });
    this.tooltip = new Tooltip(this.grid.element, (element) => this.describer.tooltip(this.grid.itemOf(element)));
    this.toolbar = new Toolbar(this, {
      onStep: (by) => this.prompts.step(by),
      onPanel: () => this.root.classList.toggle("is-wide"),
    });
    this.models = new ModelsPanel(this);
    this.prompts = new PromptsPanel(this);
    this.functions = new FunctionsPanel(this);
    this.legend = h("ul", { class: "legend", "aria-label": "Border colours", hidden: true });
    this.empty = h("div", { class: "message", role: "status", hidden: true });
    this.root.className = "view gallery";
    replace(
      this.root,
      h("aside", { class: "panel", "aria-label": "Choose" }, this.models.element, this.prompts.element, this.functions.element),
      h("div", { class: "stage" }, this.toolbar.element, this.legend, this.empty, this.grid.element),
      this.tooltip.element,
    );
    // The page is laid out while the first answers are on their way.
    this.models.update();
    this.grid.measure();
  }

  /** Order, sections, borders and size of the pictures that are collected. */
  #arrange(isNew) {
    const { state, collection, describer } = this;
    if (isNew) {
      collection.items = sortItems(collection.items, state.sort, collection.ranks, this.scores);
      describer.update();
      this.parts = sections(collection.items, state.sort, describer);
    }
    const colours = borders(state.border, collection.items, describer, collection.ranks);
    const hasCaptions = describer.hasCaptions;
    this.#isArranged = true;
    this.painter.setLook(state);
    if (isNew) this.#announce();
    this.#showEmptiness();
    showLegend(this.legend, colours);
    this.grid.show(collection.items, this.parts, {
      size: state.size,
      border: state.border === "none" ? THIN : THICK,
      hasCaptions,
      hasMore: describer.hasMore,
      describe: (item) => describer.tile(item, colours.colour(item)),
    });
    if (this.#startTop !== null && isNew) {
      this.grid.element.scrollTop = this.#startTop;
      this.#startTop = null;
    }
    this.toolbar.update({ hasCaptions });
  }

  #announce() {
    const { n, items, shown, isByMean } = this.collection;
    const left =
      n > items.length
        ? [
            `${n.toLocaleString("en")} pictures are more than a page holds: the first ${items.length.toLocaleString("en")} are shown. Choose fewer heads or prompts.`,
          ]
        : [];
    const means = isByMean ? ["So many prompts are shown that heads are sorted by their mean over all prompts."] : [];
    showNotices("many", [...left, ...means]);
    this.toolbar.announce(n);
    const title = shown.map(({ model }) => model.title).join(", ");
    document.title = title ? `${title} · pattern-lens` : "pattern-lens";
  }

  #showEmptiness() {
    const found = emptiness(this.model, this.collection);
    this.empty.hidden = !found;
    this.grid.element.hidden = Boolean(found);
    if (!found) return;
    const all = found.canChooseAll && h("p", {}, h("button", { onclick: () => this.change({ heads: {} }) }, "Choose all heads"));
    replace(this.empty, h("b", {}, found.title), unturned(found.sentence), all);
  }

  #showFailure(error) {
    this.collection.clear();
    this.parts = [];
    this.grid.show([], [], { size: this.state.size, border: THIN, hasCaptions: false, hasMore: false, describe: () => ({}) });
    this.empty.hidden = false;
    this.grid.element.hidden = true;
    replace(this.empty, h("b", {}, "The pictures could not be fetched"), error.message);
    if (error.name !== "SourceError") console.error(error);
    this.#firstDrawn();
  }

  #tilesChanged() {
    this.painter.paint();
    this.tooltip.hide();
    this.toolbar.setCount(this.grid.range, this.collection.items.length, this.collection.n);
  }

  #busy() {
    delete document.documentElement.dataset.ready;
  }

  /** Every tile that exists is drawn: said for who measures and tests. */
  #done(n) {
    if (!this.#isArranged || document.documentElement.dataset.ready !== undefined) return;
    document.documentElement.dataset.ready = String(n);
    performance.clearMarks("pattern-lens:gallery");
    performance.mark("pattern-lens:gallery");
    this.#firstDrawn();
  }

  /** What the first pictures need not wait for: tables, scores, documentation. */
  async #afterwards(turn) {
    await this.whenDrawn;
    const chosen = this.model.chosenModels();
    const ids = chosen.map((model) => model.id).join();
    const isCurrent = () => turn === this.#turn && !this.#isClosed;
    if (!isCurrent()) return;
    try {
      if (this.#panelsOf !== ids) await this.#loadPanels(chosen, ids);
      await this.scores.loadPrompts(this.collection.shown, this.collection.isByScore ? undefined : HOVERED_PROMPTS);
    } catch (error) {
      if (isCurrent()) showNotices("server", [error.message], { isError: true });
      if (error.name !== "SourceError") console.error(error);
    }
    if (isCurrent() && this.functions.names) this.#leaveOutUnknown();
  }

  async #loadPanels(chosen, ids) {
    this.#panelsOf = ids;
    const functions = Promise.all(chosen.map(async (model) => (await this.source.functions(model.id)).functions));
    await Promise.all([this.scores.load(chosen), functions, ...chosen.map((model) => this.model.loadList(model))]);
    if (this.#isClosed) return;
    this.models.update();
    this.toolbar.update({ hasCaptions: this.describer.hasCaptions });
    this.functions.setFunctions(
      await functions,
      chosen.some((model) => model.patterns),
    );
    await this.prompts.load(chosen);
    this.prompts.update();
  }

  #leaveOutUnknown() {
    const before = JSON.stringify(this.state);
    const scores = this.scores.known(this.model.chosenModels()).map((score) => score.name);
    const notes = this.model.leaveOutUnknown({ functions: this.functions.names, scores, colours: names() });
    if (notes.length) showNotices("names", notes);
    if (JSON.stringify(this.state) !== before) this.change({});
  }

  #open({ model, prompt, layer, head }) {
    this.navigate("single", {
      ...this.state,
      prompt: prompt?.hash ?? null,
      head: formatPlace(model.id, layer ?? "x", head ?? "x"),
      cell: null,
    });
  }
}
