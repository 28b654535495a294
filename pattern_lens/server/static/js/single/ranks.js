/** The keys that a query attends to most, and the queries that attend to a key most. */
import { h, replace } from "pattern-lens/dom.js";
import { tokenText } from "pattern-lens/single/readout.js";

const MOST = 8;

/** Indexes of the largest positive numbers, largest first. */
export function largest(values, most = MOST) {
  const best = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!(value > 0) || (best.length === most && value <= values[best[most - 1]])) continue;
    let at = best.length;
    while (at > 0 && values[best[at - 1]] < value) at--;
    best.splice(at, 0, i);
    if (best.length > most) best.pop();
  }
  return best;
}

class RankList {
  constructor(what, onPick) {
    this.what = what;
    this.title = h("h3");
    this.list = h("ol", { class: "ranks" });
    this.rows = Array.from({ length: MOST }, () => this.row(onPick));
    replace(
      this.list,
      this.rows.map(({ row }) => row),
    );
    this.element = h("div", { class: `rank-list of-${what}` }, this.title, this.list);
  }

  row(onPick) {
    const parts = {
      bar: h("span", { class: "bar" }),
      token: h("span", { class: "rank-token" }),
      value: h("span", { class: "rank-value" }),
    };
    const button = h("button", { type: "button", onclick: () => onPick(parts.index) }, parts.bar, parts.token, parts.value);
    return Object.assign(parts, { row: h("li", null, button), button });
  }

  show(heading, values, tokens, current) {
    replace(this.title, heading);
    const best = largest(values);
    this.rows.forEach((parts, rank) => {
      const index = best[rank];
      parts.row.hidden = index === undefined;
      if (index === undefined) return;
      parts.index = index;
      parts.bar.style.width = `${100 * Math.min(1, values[index])}%`;
      replace(parts.token, tokens ? [`${index}: `, tokenText(tokens[index])] : String(index));
      parts.value.textContent = values[index] < 0.0005 ? values[index].toExponential(0) : values[index].toFixed(3);
      parts.button.setAttribute("aria-current", String(index === current));
    });
  }
}

export class Ranks {
  /** @param {import("./cursor.js").Cursor} cursor */
  constructor(cursor) {
    this.keys = new RankList("key", (key) => cursor.lock({ ...cursor.cell, key }));
    this.queries = new RankList("query", (query) => cursor.lock({ ...cursor.cell, query }));
    this.element = h(
      "section",
      { class: "single-panel ranks-panel", "aria-label": "strongest attention" },
      this.keys.element,
      this.queries.element,
    );
  }

  update(view) {
    this.view = view;
    this.last = {};
  }

  point({ cell }) {
    if (!cell || !this.view) return;
    const { pattern, queryTokens, keyTokens } = this.view;
    if (cell.query !== this.last.query || cell.key !== this.last.key) {
      this.keys.show(["Query ", h("b", null, String(cell.query)), " attends to"], pattern.row(cell.query), keyTokens, cell.key);
      this.queries.show(
        ["Key ", h("b", null, String(cell.key)), " attended by"],
        pattern.column(cell.key),
        queryTokens,
        cell.query,
      );
    }
    this.last = { ...cell };
  }
}
