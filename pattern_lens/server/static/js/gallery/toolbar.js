/** How the pictures are shown: order, borders, size, captions, colours. */
import { names } from "pattern-lens/colours.js";
import { h, icon, option, replace } from "pattern-lens/dom.js";
import { scoreTitle } from "pattern-lens/scores.js";
import { BORDERS, MAX_SIZE, MIN_SIZE, SORTS } from "pattern-lens/state.js";

const LEFT = "M10 3L5 8l5 5";
const RIGHT = "M6 3l5 5-5 5";
const TURN = "M5 3v10M5 13l-2.5-2.5M5 13l2.5-2.5M11 13V3M11 3L8.5 5.5M11 3l2.5 2.5";
const PANEL = "M2.5 3h11v10h-11zM6.5 3v10";
// The slider's steps are even to the eye: each is the same factor.
const STEPS = 100;

export class Toolbar {
  constructor(app, { onStep, onPanel }) {
    this.app = app;
    const change = (patch) => app.change(patch);
    this.count = h("output", { class: "count", id: "count", "aria-live": "off" });
    this.status = h("span", { class: "hidden-text", role: "status" });
    this.sort = h("select", { id: "sort", onchange: () => change({ sort: this.sort.value }) });
    this.turn = h(
      "button",
      {
        class: "quiet",
        id: "turn",
        title: "Turn the order round",
        "aria-label": "Turn the order round",
        onclick: () => this.#turn(),
      },
      icon(TURN),
    );
    this.border = h(
      "select",
      { id: "border", onchange: () => change({ border: this.border.value }) },
      BORDERS.map((name) => option(name, name)),
    );
    this.size = h("input", {
      id: "size",
      type: "range",
      min: "0",
      max: String(STEPS),
      oninput: () => change({ size: sizeOf(Number(this.size.value)) }),
    });
    this.captions = h("input", { id: "captions", type: "checkbox", onchange: () => change({ captions: this.captions.checked }) });
    this.cmap = h("select", { id: "cmap", onchange: () => change({ cmap: this.cmap.value }) });
    this.log = h("input", {
      id: "log",
      type: "checkbox",
      onchange: () => change({ scale: this.log.checked ? "log" : "linear" }),
    });
    this.bos = h("input", { id: "bos", type: "checkbox", onchange: () => change({ bos: this.bos.checked }) });
    this.element = h(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Pictures" },
      h(
        "button",
        {
          class: "quiet",
          id: "panel-button",
          title: "Show or hide the panel",
          "aria-label": "Show or hide the panel",
          onclick: onPanel,
        },
        icon(PANEL),
      ),
      h(
        "span",
        { class: "steps" },
        h(
          "button",
          { id: "previous-prompt", title: "Previous prompt ([)", "aria-label": "Previous prompt", onclick: () => onStep(-1) },
          icon(LEFT),
        ),
        h(
          "button",
          { id: "next-prompt", title: "Next prompt (])", "aria-label": "Next prompt", onclick: () => onStep(1) },
          icon(RIGHT),
        ),
      ),
      this.count,
      this.status,
      group(field("Sort", this.sort, this.turn), field("Borders", this.border)),
      group(field("Size", this.size), check("Captions", this.captions)),
      group(
        field("Colours", this.cmap),
        check("Log", this.log),
        check("BOS", this.bos, "Without BOS, its key is left out and each row sums to 1 again"),
      ),
    );
  }

  update({ hasCaptions }) {
    const { state, chosenModels } = this.app.model;
    this.#updateSort(state.sort, this.app.scores.known(chosenModels.call(this.app.model)));
    this.border.value = state.border;
    if (document.activeElement !== this.size) this.size.value = String(stepOf(state.size));
    this.size.title = `${state.size} pixels`;
    this.captions.checked = hasCaptions;
    if (this.cmap.length === 0)
      replace(
        this.cmap,
        names().map((name) => option(name, name)),
      );
    this.cmap.value = state.cmap;
    this.log.checked = state.scale === "log";
    this.bos.checked = state.bos;
  }

  setCount([first, last], n, nAll) {
    const number = (value) => value.toLocaleString("en");
    const what = nAll === 1 ? "picture" : "pictures";
    const range = last - first + 1 < n ? `${number(first)}–${number(last)} of ` : "";
    this.count.value = n === 0 ? "" : `${range}${number(n)} ${what}${nAll > n ? ` (of ${number(nAll)})` : ""}`;
  }

  /** Says how many pictures there are, once a choice and not at every scroll. */
  announce(n) {
    this.status.textContent = `${n.toLocaleString("en")} pictures`;
  }

  #updateSort(sort, scores) {
    const key = scores.map((score) => score.name).join();
    if (key !== this.scoreNames || this.sort.length === 0) {
      this.scoreNames = key;
      replace(
        this.sort,
        option("", "as in the model"),
        SORTS.slice(1).map((name) => option(name, name)),
        scores.length > 0 &&
          h(
            "optgroup",
            { label: "stored scores" },
            scores.map((score) => h("option", { value: `score.${score.name}`, title: score.long_name }, scoreTitle(score.name))),
          ),
      );
    }
    const name = sort.replace(/^-/, "");
    this.sort.value = name === "model" ? "" : name;
    this.turn.setAttribute("aria-pressed", String(sort.startsWith("-")));
  }

  #turn() {
    const { sort } = this.app.model.state;
    this.app.change({ sort: sort.startsWith("-") ? sort.slice(1).replace(/^model$/, "") : `-${sort || "model"}` });
  }
}

function group(...controls) {
  return h("div", { class: "group" }, controls);
}

function field(name, ...controls) {
  const [first, ...others] = controls;
  return h("span", { class: "field" }, h("label", { class: "field", for: first.id }, h("span", {}, name), first), others);
}

function check(name, box, title = null) {
  return h("label", { class: "check", title }, box, name);
}

function sizeOf(step) {
  return Math.round(MIN_SIZE * (MAX_SIZE / MIN_SIZE) ** (step / STEPS));
}

function stepOf(size) {
  return Math.round((STEPS * Math.log(size / MIN_SIZE)) / Math.log(MAX_SIZE / MIN_SIZE));
}
