/** The pictures as a page of tiles of which only those near the window exist. */
import { h, replace } from "pattern-lens/dom.js";
import { Layout, PADDING } from "pattern-lens/gallery/layout.js";
import { Tile } from "pattern-lens/gallery/tile.js";
import { MIN_SIZE } from "pattern-lens/state.js";

// How far beyond the window tiles exist, so that slow scrolling meets no empty place.
const MARGIN = 240;
const CAPTION = 20;
const MORE = 17;

export class Grid {
  items = [];
  tiles = new Map();
  #layout = new Layout([], { width: 0, tileWidth: 1, tileHeight: 1 });
  #headings = new Map();
  #current = 0;
  #frame = 0;

  /** @param {{onTiles: () => void, onOpen: (item: object, event: Event) => void}} listeners */
  constructor({ onTiles, onOpen }) {
    this.onTiles = onTiles;
    this.onOpen = onOpen;
    this.space = h("div", { class: "grid-space" });
    this.element = h(
      "section",
      {
        class: "grid",
        id: "grid",
        "aria-label": "Pictures",
        onscroll: () => this.#later(),
        onkeydown: (event) => this.#onKey(event),
        onclick: (event) => this.#onClick(event),
        onfocusin: (event) => this.#onFocus(event),
      },
      this.space,
    );
    this.observer = new ResizeObserver(() => this.#resized());
    this.observer.observe(this.element);
  }

  /**
   * @param {object[]} items
   * @param {object[]} parts sections of them
   * @param {{size: number, border: number, hasCaptions: boolean, hasMore: boolean, describe: (item: object) => object}} look
   */
  show(items, parts, look) {
    this.items = items;
    this.parts = parts;
    this.look = look;
    this.element.classList.toggle("has-captions", look.hasCaptions);
    this.element.classList.toggle("has-borders", look.border > 1);
    this.#current = Math.min(this.#current, Math.max(0, items.length - 1));
    this.#place();
  }

  /** Numbers of the first and last picture in the window, from 1. */
  get range() {
    const { numbers } = this.#layout.between(this.#top, this.#top + this.#height);
    return numbers.length ? [numbers[0] + 1, numbers.at(-1) + 1] : [0, 0];
  }

  /** The item of a tile's element. */
  itemOf(element) {
    return this.tileOf(element)?.item ?? null;
  }

  tileOf(element) {
    const number = element?.closest?.(".tile")?.dataset.number;
    return number === undefined ? null : (this.tiles.get(Number(number)) ?? null);
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  #resized() {
    if (this.look && this.element.clientWidth !== this.#width) this.#place();
    else this.#later();
  }

  #place() {
    const { size, border, hasCaptions, hasMore } = this.look;
    this.measure();
    // One picture is never wider than the window.
    const tileWidth = Math.max(MIN_SIZE, Math.min(size + 2 * border, this.#width - 2 * PADDING));
    const tileHeight = tileWidth + (hasCaptions ? CAPTION + (hasMore ? MORE : 0) : 0);
    this.#layout = new Layout(this.parts, { width: this.#width, tileWidth, tileHeight });
    // Where fewer pictures leave the window, once the height below is set.
    this.#top = Math.max(0, Math.min(this.#top, this.#layout.height - this.#height));
    this.#fill(true);
    this.space.style.height = `${this.#layout.height}px`;
    this.element.style.setProperty("--tile-width", `${tileWidth}px`);
    this.element.style.setProperty("--tile-height", `${tileHeight}px`);
  }

  #width = 0;
  #height = 0;
  #top = 0;

  /** Where the window is: read before anything is written, or the browser would have to lay out the page on the spot. */
  measure() {
    this.#top = this.element.scrollTop;
    this.#height = this.element.clientHeight;
    this.#width = this.element.clientWidth;
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.measure();
      this.#fill(false);
    });
  }

  /** Makes the tiles near the window exist, and no others. */
  #fill(isNew) {
    const { numbers, headings } = this.#layout.between(this.#top - MARGIN, this.#top + this.#height + MARGIN);
    const wanted = new Set(numbers);
    const focused = document.activeElement;
    for (const [number, tile] of this.tiles) {
      if (wanted.has(number)) continue;
      if (tile.element === focused) this.element.focus({ preventScroll: true });
      tile.element.remove();
      this.tiles.delete(number);
    }
    const made = document.createDocumentFragment();
    for (const number of numbers) {
      const held = this.tiles.get(number);
      if (held && !isNew) continue;
      this.#showTile(held ?? this.#make(number, made), number);
    }
    this.space.append(made);
    this.#showHeadings(headings);
    this.onTiles();
  }

  #make(number, parent) {
    const tile = new Tile();
    tile.element.dataset.number = number;
    this.tiles.set(number, tile);
    parent.append(tile.element);
    return tile;
  }

  #showTile(tile, number) {
    const { left, top } = this.#layout.at(number);
    tile.element.style.transform = `translate(${left}px, ${top}px)`;
    tile.element.tabIndex = number === this.#current ? 0 : -1;
    tile.show(this.items[number], this.look.describe(this.items[number]));
  }

  #showHeadings(wanted) {
    for (const element of this.#headings.values()) element.remove();
    this.#headings.clear();
    for (const i of wanted) {
      const { title, count, top } = this.#layout.parts[i];
      const heading = h(
        "h3",
        { class: "grid-heading" },
        h("bdi", { class: "grid-title" }, title),
        h("span", { class: "muted" }, String(count)),
      );
      heading.style.transform = `translateY(${top}px)`;
      this.#headings.set(i, heading);
    }
    this.space.prepend(...this.#headings.values());
  }

  #onClick(event) {
    const item = this.itemOf(event.target);
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!item || !isPlain) return;
    event.preventDefault();
    this.onOpen(item);
  }

  #onFocus(event) {
    const number = event.target.closest?.(".tile")?.dataset.number;
    if (number === undefined) return;
    const before = this.tiles.get(this.#current);
    if (before) before.element.tabIndex = -1;
    this.#current = Number(number);
    event.target.tabIndex = 0;
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns } = this.#layout;
    const page = columns * Math.max(1, Math.floor(this.element.clientHeight / this.#layout.rowHeight));
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    if (!(event.key in steps) || this.items.length === 0) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.items.length - 1, this.#current + steps[event.key])));
  }

  /** Brings a tile into the window and puts the keyboard on it. */
  focus(number) {
    const { top } = this.#layout.at(number);
    const { scrollTop, clientHeight } = this.element;
    const bottom = top + this.#layout.tileHeight;
    if (top < scrollTop) this.element.scrollTop = top - 40;
    else if (bottom > scrollTop + clientHeight) this.element.scrollTop = bottom - clientHeight + 12;
    this.measure();
    this.#fill(false);
    this.tiles.get(number)?.element.focus({ preventScroll: true });
  }

  /** Takes all tiles away. */
  clear() {
    this.tiles.clear();
    this.#headings.clear();
    replace(this.space);
    this.show([], [], this.look ?? { size: 120, border: 1, hasCaptions: false, hasMore: false, describe: () => ({}) });
  }
}
