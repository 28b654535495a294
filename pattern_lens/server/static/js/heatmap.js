/**
 * Heat map of one pattern: three canvases over each other. Values and axes are drawn when the pattern, the colours or the
 * window change; only the overlay is drawn while the pointer moves.
 */
import { h } from "pattern-lens/dom.js";
import { paintPattern, table } from "pattern-lens/colours.js";
import { drawAxes, labelRoom } from "pattern-lens/single/axes.js";
import { colourOf, drawCrosshair } from "pattern-lens/single/crosshair.js";
import { cellAt, layOut } from "pattern-lens/single/geometry.js";
import { reduced } from "pattern-lens/single/reduce.js";

const PAGE_COLOURS = ["muted", "line", "ground", "query", "key", "query-line", "key-line", "ink"];

/** Colours of the page, as canvases need them: computed, because a custom property may hold `light-dark(…)`. */
function pageColours(probe) {
  const style = getComputedStyle(probe);
  const colours = PAGE_COLOURS.map((name) => {
    probe.style.color = `var(--single-${name})`;
    return [name, style.color];
  });
  return Object.fromEntries(colours);
}

function sized(canvas, width, height, ratio) {
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

export class Heatmap {
  /** @param {{onHover: (cell: {query: number, key: number}) => void, onPick: (cell: {query: number, key: number}) => void}} handlers */
  constructor({ onHover, onPick }) {
    this.base = h("canvas", { class: "heatmap-values", id: "heatmap", role: "img", "aria-label": "attention pattern" });
    this.axes = h("canvas", { class: "heatmap-layer", "aria-hidden": "true" });
    this.overlay = h("canvas", { class: "heatmap-layer", "aria-hidden": "true" });
    this.probe = h("span", { hidden: true });
    this.element = h("div", { class: "heatmap" }, this.axes, this.base, this.overlay, this.probe);
    this.cell = null;
    this.plot = null;
    this.element.addEventListener("pointermove", (event) => this.report(event, onHover));
    this.element.addEventListener("click", (event) => this.report(event, onPick));
  }

  report(event, handler) {
    if (!this.plot) return;
    const box = this.axes.getBoundingClientRect();
    const cell = cellAt(this.geometry, this.plot, event.clientX - box.left, event.clientY - box.top);
    this.element.classList.toggle("is-over-cell", cell !== null);
    if (cell) handler(cell);
  }

  /**
   * Shows a pattern.
   * @param {{pattern: import("./pattern.js").Pattern, queryTokens?: string[], keyTokens?: string[], map: string, scale: string, name: string, middle?: number}} shown
   * @param {{width: number, height: number}} room
   */
  show({ pattern, queryTokens, keyTokens, map, scale, name, middle = 0 }, room) {
    const { nQuery, nKey, isTriangle } = pattern;
    this.colours = table(map, "linear");
    const labels = { queryRoom: labelRoom(nQuery, queryTokens), keyRoom: labelRoom(nKey, keyTokens) };
    this.plot = {
      pattern,
      nQuery,
      nKey,
      isTriangle,
      queryTokens,
      keyTokens,
      ...labels,
      scale,
      middle,
      colour: colourOf(this.colours, scale),
    };
    this.base.setAttribute("aria-label", name);
    this.layOut(room);
  }

  /** Draws everything anew, for a window of another size or other colours of the page. */
  layOut(room) {
    if (!this.plot) return;
    this.ratio = window.devicePixelRatio || 1;
    this.geometry = layOut({ ...this.plot, ...room, ratio: this.ratio });
    this.page = pageColours(this.probe);
    Object.assign(this.plot, { ground: this.page.ground, line: this.page.line });
    this.drawValues();
    const { width, height } = this.geometry;
    drawAxes(sized(this.axes, width, height, this.ratio), this.geometry, this.plot, {
      text: this.page.muted,
      line: this.page.line,
    });
    this.context = sized(this.overlay, width, height, this.ratio);
    this.drawOverlay();
  }

  drawValues() {
    const { left, top, plotWidth, plotHeight } = this.geometry;
    const { pattern, scale, middle } = this.plot;
    // A canvas of more numbers than device pixels is reduced by maximum: dropping or averaging rows would hide thin diagonals.
    const pixels = { width: Math.round(plotWidth * this.ratio), height: Math.round(plotHeight * this.ratio) };
    paintPattern(this.base, reduced(pattern, pixels, middle), this.colours, { scale });
    Object.assign(this.base.style, { left: `${left}px`, top: `${top}px`, width: `${plotWidth}px`, height: `${plotHeight}px` });
  }

  /** Moves the cross-hair. */
  point(cell) {
    this.cell = cell;
    this.drawOverlay();
  }

  drawOverlay() {
    if (!this.context) return;
    this.context.clearRect(0, 0, this.geometry.width, this.geometry.height);
    const { cell, plot } = this;
    if (cell && cell.query < plot.nQuery && cell.key < plot.nKey)
      drawCrosshair(this.context, this.geometry, plot, cell, this.page);
  }
}
