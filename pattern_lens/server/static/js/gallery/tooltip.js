/** What a picture is of, beside the pointer or the keyboard's place. */
import { h, replace } from "pattern-lens/dom.js";

const DISTANCE = 14;
const MAX_TEXT = 160;

export class Tooltip {
  /** @param {HTMLElement} area @param {(element: Element) => null | {title: string, lines: string[], text: string | null, error: string | null}} describe */
  constructor(area, describe) {
    this.describe = describe;
    this.element = h("div", { class: "tooltip", id: "tooltip", role: "tooltip", hidden: true });
    area.addEventListener("pointermove", (event) => this.#at(event.target, event.clientX, event.clientY));
    area.addEventListener("pointerleave", () => this.hide());
    area.addEventListener("scroll", () => this.hide());
    area.addEventListener("focusin", (event) => this.#atElement(event.target));
    area.addEventListener("focusout", () => this.hide());
  }

  hide() {
    this.element.hidden = true;
    this.shown = null;
  }

  #atElement(target) {
    if (!target.matches(":focus-visible")) return;
    const box = target.getBoundingClientRect();
    this.#at(target, box.left + box.width / 2, box.bottom - DISTANCE);
  }

  #at(target, x, y) {
    const owner = target.closest(".tile");
    if (!owner) this.hide();
    else if (this.shown !== owner) this.#fill(owner);
    if (!this.element.hidden) this.#place(x, y);
  }

  #place(x, y) {
    const { width, height } = this.box;
    const left = x + DISTANCE + width > innerWidth ? x - DISTANCE - width : x + DISTANCE;
    const top = y + DISTANCE + height > innerHeight ? y - DISTANCE - height : y + DISTANCE;
    this.element.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  #fill(owner) {
    const found = this.describe(owner);
    this.element.hidden = !found;
    this.shown = owner;
    if (!found) return;
    replace(
      this.element,
      h("b", {}, found.title),
      found.error && h("div", { class: "error" }, found.error),
      h(
        "table",
        {},
        h(
          "tbody",
          {},
          found.lines.map(([name, value, isMain]) =>
            h("tr", { class: isMain ? "is-main" : null }, h("th", { scope: "row" }, name), h("td", {}, value)),
          ),
        ),
      ),
      found.text &&
        h(
          "div",
          { class: "muted" },
          h("bdi", {}, found.text.length > MAX_TEXT ? `${found.text.slice(0, MAX_TEXT)}…` : found.text),
        ),
    );
    this.box = this.element.getBoundingClientRect();
  }
}
