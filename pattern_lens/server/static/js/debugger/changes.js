/** What the present trace asks beside its objective: the traced node and the ablations, each with its way out. */
import { h, replace } from "pattern-lens/dom.js";
import { number, objectiveText, signed } from "pattern-lens/debugger/words.js";
import { shown } from "pattern-lens/tokens.js";

const OBJECTIVE = { node: null, chosen: null };

export class Changes {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.heading = h("p", { class: "objective", id: "objective" });
    this.list = h("ul", { class: "changes", id: "changes", "aria-label": "traced node and ablations" });
    this.clear = h(
      "button",
      { type: "button", class: "link", onclick: () => app.go(app.asked({ ablate: [] })) },
      "remove all ablations",
    );
    this.table = h("table", { class: "next-tokens", id: "next-tokens" });
    this.note = h("p", { class: "muted" });
    this.element = h(
      "section",
      { class: "debugger-panel changes-panel", "aria-label": "objective, ablations and logits" },
      h("header", { class: "panel-head" }, h("h2", null, "Objective")),
      this.heading,
      this.list,
      this.clear,
      this.table,
      this.note,
    );
  }

  show({ answer }) {
    const why = this.app.whyNot();
    this.writeObjective(answer);
    const { ablations, traced } = this.app;
    replace(
      this.list,
      traced ? this.item("traced", traced, "trace the objective again", why, () => this.app.go(this.app.asked(OBJECTIVE))) : null,
      ablations.map((label) => this.item("ablated", label, "let it be what it is", why, () => this.app.toggle(label))),
    );
    this.list.hidden = !traced && !ablations.length;
    this.clear.hidden = ablations.length < 2 || why !== null;
    this.writeTokens(answer);
  }

  writeObjective({ objective, value, node, node_value: nodeValue, closure_error: error, next }) {
    const { before, after } = next?.objective ?? { before: null, after: value };
    const isChanged = before !== null && this.app.ablations.length > 0;
    Object.assign(this.heading.dataset, { before: before ?? "", after: after ?? "" });
    replace(
      this.heading,
      h("bdi", null, objectiveText(objective)),
      " ",
      isChanged ? [h("b", null, signed(before)), " → ", h("b", null, signed(after)), ` (${signed(after - before)})`] : h("b", null, signed(value)),
      node && nodeValue !== null ? h("span", { class: "muted" }, ` · ${node} is ${number(nodeValue)}`) : null,
      error === null ? null : h("span", { class: "muted", title: "how far the sum of all direct effects is from it" }, ` · closure error ${number(error)}`),
    );
  }

  item(what, label, title, why, onclick) {
    const remove = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `${title}: ${label}`, title, onclick },
      "×",
    );
    return h(
      "li",
      { class: `is-${what}`, dataset: { [what]: label } },
      h("span", { class: "muted" }, what),
      h("span", { class: "mono" }, label),
      why === null ? remove : null,
    );
  }

  writeTokens({ next }) {
    this.table.hidden = !next;
    this.note.textContent = next ? "" : "A stored trace holds no logits: a new one shows those before and after.";
    this.note.hidden = Boolean(next);
    if (!next) return;
    const isChanged = this.app.ablations.length > 0;
    const head = isChanged ? ["next token", "before", "after", "change"] : ["next token", "logit", "probability"];
    replace(
      this.table,
      h("caption", { class: "hidden-text" }, "Most probable next tokens"),
      h("thead", null, h("tr", null, head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", null, next.tokens.map((token) => row(token, isChanged))),
    );
  }
}

function row({ id, text, role, before, after, probability }, isChanged) {
  const change = before === null || after === null ? null : after - before;
  const numbers = isChanged ? [number(before), number(after), signed(change)] : [number(before), percent(probability)];
  return h(
    "tr",
    { dataset: { token: id, before: before ?? "", after: after ?? "", role: role ?? "" } },
    h("th", { scope: "row" }, h("bdi", { class: "mono" }, shown(text)), role ? h("span", { class: "badge" }, role) : null),
    numbers.map((value, i) => h("td", { class: isChanged && i === 2 && change ? (change < 0 ? "takes" : "adds") : null }, value)),
  );
}

function percent(value) {
  if (value === null) return "–";
  return value >= 0.0995 ? `${(100 * value).toFixed(0)} %` : value >= 0.001 ? `${(100 * value).toFixed(1)} %` : value.toExponential(0).replace("-", "−");
}
