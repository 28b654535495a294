/** The single view as a whole: what is shown, how it changes, and what the address says of it. */
import { loadColours, names, DEFAULT_MAP } from "pattern-lens/colours.js";
import { formatPlace, label } from "pattern-lens/heads.js";
import { showNotices } from "pattern-lens/notices.js";
import { Cursor } from "pattern-lens/single/cursor.js";
import { largest } from "pattern-lens/single/ranks.js";
import { isKey, resolveHead, resolvePrompt, whyNothing } from "pattern-lens/single/resolve.js";
import { address, pushState, replaceState } from "pattern-lens/state.js";

// Browsers refuse more than a few address changes a second, and held keys make many.
const ADDRESS_AFTER_MS = 250;
const DETAILS_AFTER_MS = 60;

export class App {
  /**
   * @param {import("pattern-lens/source.js").Source} source
   * @param {object} state of state.js; kept up to date in place
   * @param {{show: (view: object) => void, point: (cursor: Cursor) => void, details: (view: object) => void, fail: (message: string) => void}} page
   */
  constructor(source, state, page) {
    this.source = source;
    this.state = state;
    this.page = page;
    this.view = null;
    this.turn = 0;
    this.cursor = new Cursor();
    this.cursor.onChange(() => this.pointed());
  }

  stop() {
    this.turn++;
    clearTimeout(this.addressTimer);
    clearTimeout(this.detailsTimer);
    showNotices("single", []);
  }

  /** Address of this view after changes. */
  address(changes) {
    return address("single", { ...this.state, ...changes });
  }

  /** Changes what is shown; a head or a prompt is a new place in the history, colours are not. */
  go(changes) {
    this.writeAddressNow();
    Object.assign(this.state, changes, { notes: [] });
    const isPlace = "head" in changes || "prompt" in changes;
    if ("prompt" in changes) this.forgetCell();
    (isPlace ? pushState : replaceState)(this.state);
    return isPlace ? this.load() : this.show();
  }

  forgetCell() {
    this.state.cell = null;
    this.cursor.isLocked = false;
    this.cursor.cell = null;
  }

  /** Head that is shown or, while it loads, asked for: where the next step starts, however fast the keys come. */
  here() {
    const { model, layer, head } = resolveHead(this.view.models, this.state.head);
    return model ? { ...this.view, model, layer, head } : this.view;
  }

  /** Loads what the state names and shows it. */
  async load() {
    const turn = ++this.turn;
    clearTimeout(this.detailsTimer);
    delete document.documentElement.dataset.ready;
    try {
      const found = await this.find();
      if (turn !== this.turn) return;
      if (found.why) this.give(found);
      else this.take(found);
    } catch (error) {
      if (turn !== this.turn) return;
      // What was shown before stays in the bar, so that one can go back to it.
      this.found = null;
      this.page.fail(error.message, this.view);
      if (error.name !== "SourceError") console.error(error);
    }
  }

  async find() {
    const [{ models }] = await Promise.all([this.source.index(), loadColours(this.source)]);
    const { model, layer, head, notes } = resolveHead(models, this.state.head);
    if (!model) return { why: whyNothing(models), notes };
    const name = label(layer, head);
    const early = this.early(model, name);
    const { prompt, notes: promptNotes } = await resolvePrompt(this.source, model, this.state.prompt);
    notes.push(...promptNotes);
    if (!prompt) return { why: `${model.file} holds no prompts yet.`, notes };
    const place = { models, model, layer, head, label: name, prompt, notes };
    if (!prompt.n_query || !prompt.n_key)
      return { ...place, why: `${model.file} holds no attention patterns of the prompt ${prompt.hash}.` };
    const stored = (await early) ?? (await this.source.exact(model.id, prompt.key, name));
    return { ...place, stored };
  }

  /** Values asked for together with the prompt, not after it; null where the prompt is not there. */
  early(model, name) {
    return isKey(this.state.prompt) ? this.source.exact(model.id, this.state.prompt, name).catch(() => null) : null;
  }

  /** Says why there is nothing to show; from a prompt without patterns one can go on to others. */
  give({ why, notes = [], ...place }) {
    this.found = null;
    this.view = place.prompt
      ? { ...place, map: this.state.cmap, scale: this.state.scale, hasBos: false, isBosShown: true }
      : null;
    this.forgetCell();
    this.page.fail(why, this.view);
    showNotices("single", notes);
  }

  take({ notes, ...found }) {
    this.found = found;
    const { model, prompt, layer, head } = found;
    if (!names("sequential").includes(this.state.cmap)) notes.push(this.otherMap());
    Object.assign(this.state, { head: formatPlace(model.id, layer, head), prompt: prompt.hash });
    this.cursor.resize(found.stored);
    this.show();
    this.firstCell(notes);
    replaceState(this.state);
    showNotices("single", notes);
    this.announce();
  }

  /** The default colours in place of unknown ones, and the sentence on it. */
  otherMap() {
    const unknown = this.state.cmap;
    this.state.cmap = DEFAULT_MAP;
    return `There is no colour map “${unknown}”; there are ${names("sequential").join(", ")}.`;
  }

  /** Draws what is found in the present colours. */
  show() {
    const { found, state } = this;
    if (!found) return;
    const map = state.cmap;
    const hasBos = found.prompt.bos && found.stored.nKey > 1;
    const isBosShown = !hasBos || state.bos !== false;
    const pattern = isBosShown ? found.stored : this.withoutBos(found.stored);
    this.view = { ...found, ...tokensOf(found), pattern, map, scale: state.scale, hasBos, isBosShown };
    this.page.show(this.view);
    if (this.cursor.cell) this.page.point(this.cursor);
    this.detailsTimer = setTimeout(() => this.page.details(this.view), DETAILS_AFTER_MS);
  }

  withoutBos(stored) {
    if (this.bosOf !== stored) Object.assign(this, { bosOf: stored, bosLess: stored.withoutBos() });
    return this.bosLess;
  }

  /** The cell of the address; else one worth seeing: the last query and the key it attends to most. */
  firstCell(notes) {
    const { cell } = this.state;
    const { cursor } = this;
    if (cell && cursor.has(cell)) cursor.lock(cell);
    else {
      if (cell)
        notes.push(
          `Cell ${cell.query}.${cell.key} is outside of this pattern of ${cursor.size.nQuery} queries and ${cursor.size.nKey} keys.`,
        );
      const query = cursor.cell?.query ?? cursor.size.nQuery - 1;
      const key = this.tellingKey(query);
      cursor.set(cursor.cell ?? { query, key }, false);
    }
  }

  /** The key that a query attends to most, the BOS aside: nearly every head rests there. */
  tellingKey(query) {
    const row = this.view.pattern.row(query);
    if (this.view.hasBos) row[0] = 0;
    return largest(row, 1)[0] ?? 0;
  }

  announce() {
    performance.mark("pattern-lens:single");
    document.documentElement.dataset.ready = "single";
  }

  pointed() {
    const { cursor } = this;
    this.page.point(cursor);
    const locked = cursor.isLocked ? { ...cursor.cell } : null;
    if (locked?.query === this.state.cell?.query && locked?.key === this.state.cell?.key) return;
    this.state.cell = locked;
    this.isAddressLate = true;
    clearTimeout(this.addressTimer);
    this.addressTimer = setTimeout(() => this.writeAddress(), ADDRESS_AFTER_MS);
  }

  writeAddressNow() {
    clearTimeout(this.addressTimer);
    if (this.isAddressLate) this.writeAddress();
  }

  writeAddress() {
    this.isAddressLate = false;
    replaceState(this.state);
  }
}

/** Tokens of the axes; an axis of another length than the prompt has none. */
function tokensOf({ prompt, stored }) {
  const ofLength = (n) => (prompt.tokens.length === n ? prompt.tokens : undefined);
  return { queryTokens: ofLength(stored.nQuery), keyTokens: ofLength(stored.nKey) };
}
