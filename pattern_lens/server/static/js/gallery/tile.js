/** One picture of the gallery: a link to the single view that holds a canvas, a stored figure, or why there is none. */
import { h, replace } from "pattern-lens/dom.js";

/** What an `<img>` shows. */
const PICTURES = new Set(["png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "svg"]);

export class Tile {
  /** What its canvas shows; null: nothing of its item yet. */
  drawn = null;
  item = null;

  constructor() {
    this.picture = h("div", { class: "picture" });
    this.headLine = h("span", { class: "caption-head" });
    this.scoreLine = h("span", { class: "caption-score" });
    this.moreLine = h("span", { class: "caption-more", dir: "auto" });
    this.caption = h("span", { class: "caption" }, this.headLine, this.scoreLine, this.moreLine);
    this.element = h("a", { class: "tile", tabindex: "-1" }, this.picture, this.caption);
  }

  /** Shows another item; a canvas keeps its old picture until the new one is drawn over it. */
  show(item, { href, title, head, score, more, colour, size }) {
    const isSame = this.item === item;
    this.item = item;
    this.element.href = href;
    this.element.setAttribute("aria-label", title);
    setText(this.headLine, head);
    setText(this.scoreLine, score);
    setText(this.moreLine, more);
    this.picture.style.borderColor = colour ?? "";
    if (this.pixels) this.setSharp(this.pixels, size);
    if (isSame && this.drawn !== null) return;
    this.drawn = null;
    if (!item.figure) this.#showCanvas();
    else if (item.figure.error) this.fail(item.figure.error, "failed");
    else if (!PICTURES.has(item.figure.format)) this.#showOther(item.figure.format);
  }

  /** Whether something has still to be fetched or drawn for it. */
  isWaiting(look) {
    return this.drawn !== look && this.drawn !== "failed" && this.drawn !== "figure";
  }

  /** A stored figure. @returns {Promise<void>} when it is there, or has failed */
  showImage(url, look) {
    this.drawn = look;
    const { item } = this;
    return new Promise((resolve) => {
      const settle = (isThere) => {
        if (this.item === item && isThere) this.drawn = "figure";
        else if (this.item === item) this.fail(`this ${item.figure.format} cannot be shown as a picture`, "no picture");
        resolve();
      };
      const image = h("img", {
        alt: "",
        draggable: "false",
        decoding: "async",
        onload: () => settle(true),
        onerror: () => settle(false),
      });
      // Matrices stored as small pictures keep their edges, as drawn ones do.
      image.addEventListener("load", () =>
        image.classList.toggle(
          "is-sharp",
          item.figure.format !== "svg" && image.naturalWidth * 1.5 <= image.clientWidth * devicePixelRatio,
        ),
      );
      image.src = url;
      this.#put(image);
    });
  }

  /** What went wrong, in the place of the picture. */
  fail(message, word = "not shown") {
    this.drawn = "failed";
    this.#put(h("span", { class: "failure" }, h("b", {}, word), message));
  }

  /** Pixels larger than life keep their edges; smaller ones are averaged. */
  setSharp(pixels, size) {
    this.pixels = pixels;
    this.canvas?.classList.toggle("is-sharp", size * devicePixelRatio >= 1.5 * pixels);
  }

  #showCanvas() {
    if (this.canvas?.parentNode === this.picture) return;
    this.canvas ??= document.createElement("canvas");
    this.#put(this.canvas);
  }

  /** A figure that is no picture: the single view offers it. */
  #showOther(format) {
    this.drawn = "figure";
    this.#put(h("span", { class: "other" }, format ?? "figure"));
  }

  #put(content) {
    replace(this.picture, content);
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
