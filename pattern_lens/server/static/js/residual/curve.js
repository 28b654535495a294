/** The logit along the streams: what it would be if the model stopped there, with the final norm's own scale. */
import { h, replace } from "pattern-lens/dom.js";
import { logits, streamTitle } from "pattern-lens/residual/words.js";

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 420, height: 236, left: 46, right: 14, top: 10, bottom: 54 };
const MOST_LABELS = 14;

export class Curve {
  constructor() {
    this.drawing = s("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, class: "curve", role: "img" });
    this.says = h("p", { class: "muted", role: "status" });
    this.element = h(
      "section",
      { class: "residual-panel curve-panel", id: "curve", "aria-label": "along the streams" },
      h("header", { class: "panel-head" }, h("h2", null, "Along the streams"), h("span", { class: "muted" }, "logits, cumulative")),
      this.drawing,
      this.says,
    );
  }

  show(found) {
    const values = found.values.map((value) => value + found.unembed_bias);
    const names = found.names;
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
    const span = high - low || 1;
    const x = (i) => SIZE.left + (i * (SIZE.width - SIZE.left - SIZE.right)) / Math.max(1, values.length - 1);
    const y = (value) => SIZE.top + ((high - value) / span) * (SIZE.height - SIZE.top - SIZE.bottom);
    const path = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    this.drawing.setAttribute("aria-label", names.map((name, i) => `${name} ${logits(values[i])}`).join(", "));
    replace(
      this.drawing,
      ticks(low, high).map((value) => [
        s("line", { class: value ? "curve-grid" : "curve-zero", ...across(y(value)) }),
        s("text", { x: SIZE.left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value).replace("-", "−")),
      ]),
      this.labels(names, x),
      s("path", { d: path, class: "curve-line" }),
      values.map((value, i) => point(names[i], value, x(i), y(value))),
    );
    this.element.dataset.values = JSON.stringify(values);
    this.says.textContent = `${names[0]} ${logits(values[0])} → ${names.at(-1)} ${logits(values.at(-1))}`;
  }

  labels(names, x) {
    const step = Math.ceil(names.length / MOST_LABELS);
    const isTurned = names.length > 6;
    const bottom = SIZE.height - SIZE.bottom + 14;
    return names.map((name, i) => {
      const isLast = i === names.length - 1;
      if (!isLast && (i % step || names.length - 1 - i < step)) return null;
      const turned = { transform: `translate(${x(i) + 4} ${bottom}) rotate(-40)`, "text-anchor": "end" };
      const straight = { x: x(i), y: bottom, "text-anchor": isLast ? "end" : "middle" };
      return s("text", isTurned ? turned : straight, name);
    });
  }
}

function point(name, value, x, y) {
  const title = s("title", {}, `${name}, ${streamTitle(name)}: ${logits(value)}`);
  return s("circle", { cx: x, cy: y, r: 3.5, class: "curve-point" }, title);
}

function across(y) {
  return { x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y, y2: y };
}

/** Round numbers between two, 0 among them. */
function ticks(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(digits)));
}

/** An element of a drawing. */
function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
