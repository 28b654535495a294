/** Draws the tiles that exist: asks for their pictures, a few prompts at a time, and paints what comes. */
import { paintBytes, pictureSize, table } from "pattern-lens/colours.js";
import { label } from "pattern-lens/heads.js";
import { withoutBos } from "pattern-lens/gallery/bos.js";

// What a browser sends to one server at once.
const MAX_REQUESTS = 6;

export class Painter {
  #asked = new Set();
  #nImages = 0;

  /** @param {{source: object, grid: import("./grid.js").Grid, onDone: (n: number) => void, onBusy: () => void}} parts */
  constructor({ source, grid, onDone, onBusy }) {
    Object.assign(this, { source, grid, onDone, onBusy });
    this.isClosed = false;
  }

  /** @param {{cmap: string, scale: string, bos: boolean}} look how patterns are drawn */
  setLook({ cmap, scale, bos }) {
    this.colours = table(cmap, scale);
    this.look = `${cmap} ${scale} ${bos}`;
    this.hasBos = bos;
  }

  /** Draws what is missing; called whenever there are other tiles. */
  paint() {
    if (this.isClosed) return;
    const waiting = [...this.grid.tiles.values()].filter((tile) => tile.isWaiting(this.look));
    if (waiting.length) this.onBusy();
    for (const tile of waiting) if (tile.item.figure && !tile.item.figure.error) this.#showFigure(tile);
    for (const [name, tiles] of groups(waiting.filter((tile) => !tile.item.figure))) {
      if (this.#asked.size >= MAX_REQUESTS) break;
      if (!this.#asked.has(name)) this.#ask(name, tiles);
    }
    this.#settle();
  }

  close() {
    this.isClosed = true;
  }

  #settle() {
    const tiles = [...this.grid.tiles.values()];
    if (!this.isClosed && this.#nImages === 0 && !tiles.some((tile) => tile.isWaiting(this.look))) this.onDone(tiles.length);
  }

  async #ask(name, tiles) {
    this.#asked.add(name);
    const items = tiles.map((tile) => tile.item);
    const { model, prompt } = items[0];
    try {
      const pictures = await this.source.pictures(
        model.id,
        prompt.key,
        items.map(({ layer, head }) => [layer, head]),
      );
      tiles.forEach(
        (tile, i) => tile.item === items[i] && this.#draw(tile, pictures.get(label(tile.item.layer, tile.item.head))),
      );
    } catch (error) {
      tiles.forEach((tile, i) => tile.item === items[i] && tile.fail(error.message));
      if (error.name !== "SourceError") console.error(error);
    } finally {
      this.#asked.delete(name);
    }
    this.paint();
  }

  #draw(tile, picture) {
    if (tile.canvas?.parentNode !== tile.picture) return;
    const shown = this.hasBos ? picture : withoutBos(picture);
    paintBytes(tile.canvas, shown, this.colours);
    tile.setSharp(pictureSize(shown).nKey, this.grid.look.size);
    tile.drawn = this.look;
  }

  async #showFigure(tile) {
    if (tile.drawn === "coming") return;
    this.#nImages += 1;
    await tile.showImage(this.source.url(tile.item.figure.href), "coming");
    this.#nImages -= 1;
    if (this.#nImages === 0) this.#settle();
  }
}

/** Tiles by the prompt whose data they need. */
function groups(tiles) {
  const found = new Map();
  for (const tile of tiles) {
    const name = `${tile.item.model.id}/${tile.item.prompt.key}`;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(tile);
  }
  return found;
}
