/** A histogram with ticks at round numbers. */
import { h, replace } from "pattern-lens/dom.js";
import { number } from "pattern-lens/features/words.js";

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 320, height: 150, left: 40, right: 8, top: 8, bottom: 22 };

export class Histogram {
  /** @param {{id: string, title: string, what: string, isSigned?: boolean, missing: string}} options */
  constructor({ id, title, what, isSigned = false, missing }) {
    this.what = what;
    this.isSigned = isSigned;
    this.missing = h("p", { class: "muted missing" }, missing);
    this.note = h("span", { class: "muted" });
    this.drawing = s("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, class: "histogram", role: "img" });
    this.element = h(
      "section",
      { class: "features-panel", id, "aria-label": title },
      h("header", { class: "panel-head" }, h("h2", null, title), this.note),
      this.drawing,
      this.missing,
    );
  }

  /** @param {{counts: number[], edges: number[]} | null} histogram @param {string} note @param {string} [missing] why there is none */
  show(histogram, note, missing) {
    const isThere = Boolean(histogram?.counts.some((count) => count > 0));
    this.note.textContent = note;
    this.drawing.toggleAttribute("hidden", !isThere);
    this.missing.hidden = isThere;
    if (missing) this.missing.textContent = missing;
    this.element.dataset.counts = isThere ? JSON.stringify(histogram.counts) : "";
    if (isThere) this.draw(histogram);
  }

  draw({ counts, edges }) {
    const [low, high] = this.range(edges);
    const most = Math.max(...counts);
    const x = (value) => SIZE.left + ((value - low) / (high - low || 1)) * (SIZE.width - SIZE.left - SIZE.right);
    const y = (count) => SIZE.height - SIZE.bottom - (count / most) * (SIZE.height - SIZE.top - SIZE.bottom);
    const base = y(0);
    this.drawing.setAttribute("aria-label", `${this.what}: ${counts.length} bins from ${number(edges[0])} to ${number(edges.at(-1))}, the largest of ${most.toLocaleString("en")}`);
    replace(
      this.drawing,
      ticks(0, most, 5).filter(Number.isInteger).map((count) => [
        s("line", { class: "histogram-grid", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y(count), y2: y(count) }),
        s("text", { x: SIZE.left - 5, y: y(count) + 4, "text-anchor": "end" }, short(count)),
      ]),
      counts.map((count, i) => this.bar(count, edges[i], edges[i + 1], x, y)),
      s("line", { class: "histogram-base", x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: base, y2: base }),
      ticks(low, high, 5).map((value) => [
        s("line", { class: "histogram-base", x1: x(value), x2: x(value), y1: base, y2: base + 4 }),
        s("text", { class: "tick", x: x(value), y: base + 16, "text-anchor": "middle" }, String(value).replace("-", "−")),
      ]),
    );
  }

  /** Activations begin at 0, where what is not active stands. */
  range(edges) {
    const [low, high] = [edges[0], edges.at(-1)];
    return this.isSigned || low < 0 ? [low, high] : [Math.min(0, low), high];
  }

  bar(count, low, high, x, y) {
    const sign = this.isSigned ? (low + high < 0 ? "is-negative" : "is-positive") : "is-size";
    const title = s("title", {}, `${number(low)} to ${number(high)}: ${count.toLocaleString("en")} ${this.what}`);
    const width = Math.max(1, x(high) - x(low) - 0.5);
    const height = count ? Math.max(1, y(0) - y(count)) : 0;
    return s("rect", { class: `histogram-bar ${sign}`, x: x(low).toFixed(2), y: (y(0) - height).toFixed(2), width: width.toFixed(2), height: height.toFixed(2) }, title);
  }
}

/** Round numbers between two: about so many of them, the ends left out where they are not round. */
export function ticks(low, high, about) {
  const rough = (high - low || 1) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough - 1e-12);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toFixed(digits)));
}

/** A count in few letters: 1200 is 1.2k. */
function short(count) {
  if (count >= 1e6) return `${Number((count / 1e6).toFixed(1))}M`;
  return count >= 1e3 ? `${Number((count / 1e3).toFixed(1))}k` : String(count);
}

function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
