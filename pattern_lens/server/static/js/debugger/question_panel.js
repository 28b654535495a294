/** What is asked: the prompt as its tokens, the token and the one against it, and the traces that are stored. */
import { h, replace } from "pattern-lens/dom.js";
import { objectiveText } from "pattern-lens/debugger/words.js";
import { Chooser } from "pattern-lens/residual/chooser.js";
import { link } from "pattern-lens/single/links.js";
import { shown, tokenLabel, unturned } from "pattern-lens/tokens.js";

export class QuestionPanel {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    const chooser = choosing(app);
    this.target = new Chooser(chooser, "target");
    this.distractor = new Chooser(chooser, "distractor");
    this.tokens = h("div", { class: "tokens debugger-tokens", dir: "ltr", role: "group", "aria-label": "tokens of the prompt" });
    this.tokens.addEventListener("click", (event) => this.onClick(event));
    this.tokens.addEventListener("keydown", (event) => this.onKey(event));
    this.at = h("p", { class: "muted", id: "token-at", role: "status" });
    this.tokens.addEventListener("pointerover", (event) => this.hover(event.target));
    this.tokens.addEventListener("focusin", (event) => this.hover(event.target));
    this.tokens.addEventListener("pointerleave", () => this.hover(null));
    this.fields = h("div", { class: "question-fields" }, this.target.element, this.distractor.element);
    this.note = h("p", { class: "muted", id: "why-not" });
    this.stored = h("ul", { class: "stored-traces", id: "traces" });
    this.storedTitle = h("h3", null, "Stored traces");
    this.element = h(
      "section",
      { class: "debugger-panel question-panel", "aria-label": "question" },
      h("header", { class: "panel-head" }, h("h2", null, "Prompt"), this.at),
      this.tokens,
      h("h3", null, "What is explained"),
      this.fields,
      this.note,
      this.storedTitle,
      this.stored,
    );
  }

  /** Shows a prompt, before anything of a trace is there. */
  place({ prompt, traces, whyNot }) {
    this.view = { prompt, traces, whyNot };
    this.spans = prompt.tokens.map((text, index) =>
      h(
        "span",
        {
          class: "token",
          role: whyNot === null ? "button" : null,
          tabindex: index ? "-1" : "0",
          title: tokenLabel(index, text),
          "aria-label": `token ${tokenLabel(index, text)}`,
          dataset: { index },
        },
        h("bdi", null, shown(text)),
      ),
    );
    replace(
      this.tokens,
      this.spans.flatMap((span, index) => (prompt.tokens[index].endsWith("\n") ? [span, h("br")] : [span])),
    );
    this.fields.hidden = whyNot !== null;
    this.note.textContent = whyNot ? unturned(whyNot) : "";
    this.note.hidden = whyNot === null;
    this.writeStored();
  }

  writeStored() {
    const { traces } = this.view;
    this.storedTitle.hidden = !traces.length;
    replace(
      this.stored,
      traces.map((trace) => {
        const isHere = this.app.state.trace === trace.name;
        const more = [trace.node && `traced ${trace.node}`, trace.ablate.length && `ablated ${trace.ablate.join(", ")}`].filter(Boolean);
        const open = link(
          this.app,
          { trace: trace.name, target: null, distractor: null, position: null, ablate: [], node: null, chosen: null },
          { "aria-current": isHere ? "true" : null, dataset: { trace: trace.name } },
          h("b", null, h("bdi", null, trace.name)),
          h("span", { class: "muted" }, h("bdi", null, [objectiveText(trace.objective), ...more].join(" · "))),
        );
        return h("li", null, open);
      }),
    );
  }

  /** Shows what an answer is of. */
  show({ answer }) {
    this.writeStored();
    const { objective } = answer;
    const one = (tokens) => (tokens.length === 1 ? tokens[0] : null);
    this.target.show(one(objective.target));
    this.distractor.show(one(objective.distractor));
    this.mark(objective.position);
  }

  /** What the address names and is no token stays written, so that it can be corrected. */
  refuse(sentence) {
    for (const chooser of [this.target, this.distractor]) chooser.refuse(sentence);
    this.writeStored();
  }

  mark(position) {
    this.spans.forEach((span, index) => span.classList.toggle("is-asked", index === position));
  }

  /** Marks where the chosen node reads and writes. */
  point(node) {
    const [query, key] = node ? [node.query ?? node.pos, node.key] : [null, null];
    this.spans?.forEach((span, index) => {
      span.classList.toggle("is-query", index === query);
      span.classList.toggle("is-key", index === key);
    });
  }

  hover(target) {
    const index = indexOf(target);
    this.at.textContent = index === null ? "" : tokenLabel(index, this.view.prompt.tokens[index]);
  }

  onClick(event) {
    const index = indexOf(event.target);
    if (index !== null) this.setPosition(index);
  }

  setPosition(position) {
    if (this.app.whyNot() === null) this.app.go(this.app.asked({ position, target: null, distractor: null, chosen: null }));
  }

  onKey(event) {
    const index = indexOf(event.target);
    if (index === null) return;
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: this.spans.length - 1 }[event.key];
    if (to !== undefined && this.spans[to]) {
      this.spans[index].tabIndex = -1;
      this.spans[to].tabIndex = 0;
      this.spans[to].focus();
    } else if (event.key === "Enter" || event.key === " ") this.setPosition(index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function indexOf(target) {
  const token = target instanceof Element ? target.closest(".token") : null;
  return token ? Number(token.dataset.index) : null;
}

/** The app as a chooser of tokens sees it: another token asks a new trace. */
function choosing(app) {
  return {
    get state() {
      return app.state;
    },
    get view() {
      return app.view;
    },
    source: app.source,
    go: (changes) => app.go(app.asked({ ...changes, chosen: null })),
  };
}
