/** What is under the cross-hair: both tokens with their neighbours, and the number as stored. */
import { h, replace } from "pattern-lens/dom.js";
import { exactText } from "pattern-lens/pattern.js";
import { shown } from "pattern-lens/tokens.js";

/** A token's text that cannot turn the text around it. */
export function tokenText(text, className = "token-text") {
  return h("bdi", { class: className, dir: "auto" }, text === undefined ? "–" : shown(text));
}

/** What a pair of tokens is known for, in the words of the field; most telling first. */
export function relation(tokens, { query, key }, { isTriangle, hasBos, nQuery, nKey }) {
  if (isTriangle && key > query) return "the key comes after the query: masked";
  if (nQuery !== nKey || !tokens) return "";
  const same = (a, b) => tokens[a] !== undefined && tokens[a] === tokens[b];
  if (key === query) return "the token itself";
  if (key === 0 && hasBos) return "BOS: where attention rests when there is nothing to find";
  if (key > 0 && same(key - 1, query) && key <= query) return "induction: the token before this key is the query's token";
  if (same(key, query)) return "duplicate: the same token as the query";
  if (key === query - 1) return "the previous token";
  return "";
}

function place(name, className) {
  const cells = { index: h("td", { class: "index" }), previous: h("td"), token: h("td", { class: "here" }), next: h("td") };
  const row = h(
    "tr",
    { class: className },
    h("th", { scope: "row" }, name),
    cells.index,
    cells.previous,
    cells.token,
    cells.next,
  );
  return { row, cells };
}

function fill({ cells }, tokens, index) {
  cells.index.textContent = String(index);
  for (const [name, at] of [
    ["previous", index - 1],
    ["token", index],
    ["next", index + 1],
  ]) {
    replace(cells[name], tokenText(tokens?.[at]));
    cells[name].title = tokens?.[at] === undefined ? "" : `${at}: ${JSON.stringify(tokens[at])}`;
  }
}

export class Readout {
  constructor() {
    this.query = place("query", "query");
    this.key = place("key", "key");
    this.value = h("output", { class: "readout-value", "aria-label": "attention" });
    this.lock = h("span", { class: "readout-lock" });
    this.note = h("p", { class: "readout-note" });
    const head = h(
      "tr",
      null,
      h("td"),
      h("th", { scope: "col" }, "index"),
      h("th", { scope: "col" }, "before"),
      h("th", { scope: "col" }, "token"),
      h("th", { scope: "col" }, "next"),
    );
    this.element = h(
      "section",
      { id: "readout", class: "single-panel cell-readout", "aria-label": "cell" },
      h("p", { class: "readout-line" }, this.value, this.lock),
      h("table", { class: "readout-tokens" }, h("thead", null, head), h("tbody", null, this.query.row, this.key.row)),
      this.note,
    );
  }

  /** @param {object} view the pattern and tokens shown */
  update(view) {
    this.view = view;
  }

  point({ cell, isLocked }) {
    if (!cell || !this.view) return;
    const { pattern, queryTokens, keyTokens, prompt } = this.view;
    const text = exactText(pattern.at(cell.query, cell.key), { isDouble: pattern.values instanceof Float64Array });
    Object.assign(this.element.dataset, { query: cell.query, key: cell.key, value: text, locked: String(isLocked) });
    this.value.textContent = text;
    this.lock.textContent = isLocked ? "locked, Esc unlocks" : "click to lock";
    fill(this.query, queryTokens, cell.query);
    fill(this.key, keyTokens, cell.key);
    this.note.textContent = relation(keyTokens, cell, { ...pattern, isTriangle: pattern.isTriangle, hasBos: prompt.bos });
  }
}
