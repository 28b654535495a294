/** Keys and controls of all pages. */
import { h, icon } from "pattern-lens/dom.js";
import { GRAMMAR } from "pattern-lens/heads.js";
import { KEYS } from "pattern-lens/single/keyboard.js";

const CLOSE = "M4 4l8 8M12 4l-8 8";
const PARTS = [
  [
    "Choosing heads",
    [
      ["click, drag", "only this head, only this rectangle of heads"],
      ["⇧ click or drag", "adds them"],
      ["Ctrl click or drag", "takes them away"],
      ["L3, H5", "a whole layer; this head of every layer"],
      ["arrows, Space", "moves in the map; chooses"],
      ["text", GRAMMAR],
    ],
  ],
  [
    "Gallery",
    [
      ["arrows", "next picture; Enter opens it with its exact values"],
      ["[  ]", "previous, next prompt"],
      ["click a prompt", "only this prompt; ⇧ adds all up to it, Ctrl or its box adds it"],
    ],
  ],
  [
    "Single pattern",
    [
      ["hover", "query and key token, and the value that the file holds"],
      ["click", "locks the cell; a second click lets go"],
      ["click a token", "sets the key; right click sets the query"],
      ...KEYS,
    ],
  ],
  [
    "Residual stream",
    [
      ["hover", "the five most probable tokens of a stream at a position"],
      ["click, Enter", "takes the position; arrows move"],
      ["answer, distractor", "whose logit, or difference of logits, is shared out"],
      ["click a head", "its pattern"],
      ["p and n, /", "previous, next prompt; searches them"],
    ],
  ],
  [
    "Debugger",
    [
      ["click a heading", "sorts by it: largest first, then highest, then lowest"],
      ["click a node, arrows", "chooses it, with its head; a cell of the pattern chooses its attention"],
      ["Ablate", "sets it to 0 and shows what becomes of the logits"],
      ["Trace upstream", "asks what made it: through Q, K, both, or V"],
      ["click a token", "the position whose next token is asked about"],
      ["p and n, /", "previous, next prompt; searches them"],
    ],
  ],
  [
    "Features",
    [
      ["n and p", "next, previous feature, in the order of the table; arrows in the table do the same"],
      ["click a heading", "sorts by it; a second click turns it round"],
      ["/", "searches: a number, or a token that a feature raises or fires on"],
      ["hover", "a token: its activation, the effect on the loss, the logits that it raises and lowers"],
      ["click, Enter", "locks the token, with links to its prompt; Escape lets go"],
      ["[  ]", "previous, next prompt, where the features of a prompt are shown"],
    ],
  ],
  [
    "Everywhere",
    [
      ["d", "dark or light"],
      ["?", "this help"],
      ["address", "holds the whole view: copy it, keep it, send it"],
    ],
  ],
];

export function helpDialog() {
  const close = h("button", { class: "quiet", "aria-label": "Close help", onclick: () => dialog.close() }, icon(CLOSE));
  const dialog = h(
    "dialog",
    { id: "help", "aria-labelledby": "help-title", onclick: (event) => event.target === dialog && dialog.close() },
    h("div", { class: "title" }, h("h2", { id: "help-title" }, "Keys and controls"), close),
    h(
      "div",
      { class: "help" },
      PARTS.map(([title, entries]) =>
        h(
          "section",
          {},
          h("h3", {}, title),
          h(
            "dl",
            {},
            entries.map(([keys, meaning]) => [h("dt", {}, keys), h("dd", {}, meaning)]),
          ),
        ),
      ),
    ),
  );
  return dialog;
}
