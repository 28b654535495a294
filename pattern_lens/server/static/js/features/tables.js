/** Tables of a feature: neurons that its decoder points along, neurons and features that fire with it, tokens that it raises and lowers. */
import { h, replace } from "pattern-lens/dom.js";
import { neuronLabel, number, percent, signed, tokenText } from "pattern-lens/features/words.js";
import { link } from "pattern-lens/single/links.js";

const NOT_COMPUTED = "Not computed of this feature.";

export class Tables {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.element = h("div", { class: "features-left" });
  }

  show(one) {
    const { sae, saes } = this.app.view;
    const second = saes.find(({ name }) => name === sae.second);
    const neuron = (n) => h("span", { class: "mono" }, neuronLabel(sae, n));
    const plain = (n) => h("span", { class: "mono" }, n);
    const own = (n) => (this.app.view.numbers.has(n) ? ownLink(n) : plain(n));
    const ownLink = (n) => link(this.app, { feature: n }, { class: "mono", dataset: { feature: n } }, n);
    const other = (n) => (second ? link(this.app, { sae: second.name, feature: n }, { class: "mono" }, n) : plain(n));
    const cosine = ["cosine", "cosine", (value) => signed(value), "cosine of the two decoder directions, or of the decoder and the neuron"];
    const pearson = ["Pearson", "pearson", (value) => signed(value), "Pearson correlation of the activations over all tokens"];
    replace(
      this.element,
      table("neurons", "Neurons it writes along", one.neurons, ["neuron", "neuron", neuron], [
        ["alignment", "alignment", signed, "the decoder's weight on this neuron, of a decoder of length 1"],
        ["of L1", "l1_share", percent, "share of this neuron in the L1 norm of the decoder"],
      ]),
      table("correlated-neurons", "Correlated neurons", one.correlated_neurons, ["neuron", "neuron", neuron], [pearson, cosine]),
      table("correlated-features", `Correlated features of ${sae.name}`, one.correlated_features, ["feature", "feature", own], [pearson, cosine]),
      sae.second === null && !one.second_features
        ? null
        : table("second-features", `Correlated features of ${sae.second ?? "a second autoencoder"}`, one.second_features, ["feature", "feature", other], [pearson, cosine]),
    );
  }
}

function table(id, title, rows, [firstTitle, first, write], columns) {
  return h(
    "section",
    { class: "features-panel", id, "aria-label": title },
    h("h2", null, h("bdi", null, title)),
    rows && rows[first].length
      ? h(
          "table",
          { class: "feature-table" },
          h("thead", null, h("tr", null, h("th", { scope: "col" }, firstTitle), columns.map(([text, , , what]) => h("th", { scope: "col", title: what }, text)))),
          h(
            "tbody",
            null,
            rows[first].map((n, i) =>
              h(
                "tr",
                { dataset: { [first]: n } },
                h("th", { scope: "row" }, write(n)),
                columns.map(([, key, say]) => h("td", { dataset: { value: rows[key][i] } }, say(rows[key][i]))),
              ),
            ),
          ),
        )
      : h("p", { class: "muted missing" }, rows ? "There are none." : NOT_COMPUTED),
  );
}

/** The tokens whose logits a feature raises and lowers most. */
export class LogitTables {
  constructor() {
    this.element = h("section", { class: "features-panel logit-tables", id: "logits", "aria-label": "logits" });
  }

  show(one) {
    const { top_logits: top, bottom_logits: bottom } = one;
    const most = Math.max(...[...(top?.logit ?? []), ...(bottom?.logit ?? [])].map(Math.abs), 1e-9);
    replace(
      this.element,
      h("div", { id: "top-logits" }, h("h3", null, "Raises most"), list(top, one.texts, most)),
      h("div", { id: "bottom-logits" }, h("h3", null, "Lowers most"), list(bottom, one.texts, most)),
    );
  }
}

function list(rows, texts, most) {
  if (!rows?.token.length) return h("p", { class: "muted missing" }, NOT_COMPUTED);
  return h(
    "ol",
    null,
    rows.token.map((id, i) => {
      const value = rows.logit[i];
      return h(
        "li",
        { class: value < 0 ? "is-negative" : "is-positive", dataset: { token: id, value } },
        h("span", { class: "logit-bar", "aria-hidden": "true", style: { width: `${(100 * Math.abs(value)) / most}%` } }),
        h("bdi", { class: "mono", dir: "ltr", title: tokenText(texts, id) }, tokenText(texts, id)),
        h("span", null, signed(value)),
      );
    }),
  );
}

/** What a change of logits is: five raised and five lowered tokens side by side. */
export function changedLogits(sequence, place, texts, what) {
  const part = (title, ids, logits) =>
    h(
      "div",
      null,
      h("b", { title: what }, title),
      h("ol", null, ids.map((id, i) => (id < 0 ? null : h("li", { dataset: { token: id, value: logits[i] } }, h("bdi", { class: "mono", dir: "ltr" }, tokenText(texts, id)), h("span", null, number(logits[i])))))),
    );
  const { raised, lowered } = sequence;
  return h(
    "div",
    { class: "card-logits" },
    raised ? part("it raises here", raised[place], sequence.raised_logit[place]) : null,
    lowered ? part("it lowers here", lowered[place], sequence.lowered_logit[place]) : null,
  );
}
