/** How values are coloured: map, scale, BOS; and the legend that says so. */
import { h, option, replace } from "pattern-lens/dom.js";
import { LOG_FLOOR, css, names, position, table } from "pattern-lens/colours.js";

const LEGEND_WIDTH = 160;

export class Looks {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.maps = h("select", {
      id: "colour-map",
      "aria-label": "colour map",
      title: "colour map",
      onchange: (event) => app.go({ cmap: event.target.value }),
    });
    this.log = this.toggle("scale-log", "Log", "logarithmic colours, from 0.0001 to 1  (l)", () => this.toggleScale());
    this.bos = this.toggle("with-bos", "BOS", "", () => this.toggleBos());
    this.element = h("div", { class: "bar-group", role: "group", "aria-label": "colours" }, this.maps, this.log, this.bos);
  }

  toggle(id, text, title, onclick) {
    return h("button", { type: "button", id, class: "toggle", title, onclick }, text);
  }

  update({ map, scale, hasBos, isBosShown }) {
    if (!this.maps.options.length)
      replace(
        this.maps,
        names("sequential").map((name) => option(name, name)),
      );
    this.maps.value = map;
    this.scale = scale;
    this.isBosShown = isBosShown;
    this.log.setAttribute("aria-pressed", String(scale === "log"));
    this.bos.setAttribute("aria-pressed", String(isBosShown));
    this.bos.disabled = !hasBos;
    this.bos.title = hasBos
      ? "show the BOS key; without it each row is scaled to sum to 1  (b)"
      : "this prompt begins without BOS";
  }

  toggleScale() {
    this.app.go({ scale: this.scale === "log" ? "linear" : "log" });
  }

  toggleBos() {
    if (!this.bos.disabled) this.app.go({ bos: !this.isBosShown });
  }
}

export class Legend {
  constructor() {
    this.bar = h("canvas", {
      class: "legend-bar",
      width: LEGEND_WIDTH,
      height: 1,
      role: "img",
      "aria-label": "colours from the lowest to the highest attention",
    });
    this.low = h("span");
    this.note = h("span", { class: "muted" });
    this.element = h(
      "p",
      { class: "single-legend" },
      this.low,
      this.bar,
      h("span", null, "1"),
      this.note,
      h("span", { class: "legend-axes" }, h("span", { class: "of-query" }, "query ↓"), h("span", { class: "of-key" }, "key →")),
    );
  }

  update({ map, scale, isBosShown, hasBos }) {
    const context = this.bar.getContext("2d");
    const colours = table(map, "linear");
    for (let x = 0; x < LEGEND_WIDTH; x++) {
      context.fillStyle = css(colours[Math.round((255 * x) / (LEGEND_WIDTH - 1))]);
      context.fillRect(x, 0, 1, 1);
    }
    this.low.textContent = scale === "log" ? `≤ ${LOG_FLOOR}` : "0";
    this.note.textContent = [scale === "log" ? "logarithmic" : "", hasBos && !isBosShown ? "BOS left out, rows scaled to 1" : ""]
      .filter(Boolean)
      .join(" · ");
    this.bar.title = scale === "log" ? `0.01 lies at ${Math.round(100 * position(0.01, "log"))} % of the bar` : "";
  }
}
