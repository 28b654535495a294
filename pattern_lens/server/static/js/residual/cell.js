/** One cell of the logit lens: its most probable tokens, each ready to be the answer or the distractor. */
import { h, replace } from "pattern-lens/dom.js";
import { percent, placeOf, streamTitle } from "pattern-lens/residual/words.js";
import { shown } from "pattern-lens/tokens.js";

export class Cell {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.place = h("p", { class: "cell-place" });
    this.list = h("ol", { class: "cell-top" });
    this.chosen = h("div", { class: "cell-chosen" });
    this.element = h(
      "section",
      { class: "residual-panel cell-panel", id: "lens-cell", "aria-label": "cell of the logit lens" },
      h("header", { class: "panel-head" }, h("h2", null, "Most probable")),
      this.place,
      this.list,
      this.chosen,
    );
  }

  async update(view) {
    this.view = view;
    this.ofTokens = null;
    await this.show(view);
  }

  /** A cell under the pointer, or the one that is chosen. */
  async hover(cell) {
    this.hovered = cell;
    if (this.view) await this.show(cell ?? this.view);
  }

  async show({ stream, position }) {
    const { model, prompt, about } = this.view;
    const { tokens } = await this.app.source.lensCell(model.id, prompt.key, about, position, stream);
    const now = this.hovered ?? this.view;
    if (now.stream !== stream || now.position !== position) return;
    replace(this.place, h("b", null, stream), " at ", h("bdi", null, placeOf(prompt, position)));
    this.place.title = streamTitle(stream);
    replace(
      this.list,
      tokens.map((token) => this.row(token)),
    );
    this.element.dataset.stream = stream;
    this.element.dataset.position = position;
    this.writeChosen({ stream, position });
  }

  row({ id, text, probability }) {
    const set = (what) =>
      h(
        "button",
        {
          type: "button",
          class: "quiet set-token",
          title: `take ${shown(text)} as the ${what}`,
          "aria-label": `take ${shown(text)} as the ${what}`,
          onclick: () => this.app.go({ [what]: `~${id}` }),
        },
        what,
      );
    return h(
      "li",
      { dataset: { id, probability } },
      h("span", { class: "bar", style: { width: `${100 * probability}%` } }),
      h("bdi", { class: "cell-text" }, shown(text)),
      h("span", { class: "cell-value" }, percent(probability)),
      this.view.isLive ? [set("answer"), set("distractor")] : null,
    );
  }

  /** Probability and rank of the chosen tokens, which are known at the chosen position. */
  tokens(found) {
    this.ofTokens = found;
    this.writeChosen(this.hovered ?? this.view);
  }

  writeChosen({ stream, position }) {
    const found = this.ofTokens;
    const isKnown = found && found.position === position;
    const at = isKnown ? found.streams.indexOf(stream) : -1;
    const rows = isKnown ? [found.answer, found.distractor].filter(Boolean) : [];
    replace(
      this.chosen,
      rows.map(({ text, rank, probability }, i) =>
        h(
          "p",
          { dataset: { token: i ? "distractor" : "answer", rank: rank[at], probability: probability[at] } },
          h("span", { class: "muted" }, i ? "distractor " : "answer "),
          h("bdi", null, shown(text)),
          ` ${percent(probability[at])}, rank ${(rank[at] + 1).toLocaleString("en")}`,
        ),
      ),
    );
  }
}
