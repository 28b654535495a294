/** What a feature fires on: windows of tokens by group, shaded by activation, underlined by the effect on the loss. */
import { h, replace } from "pattern-lens/dom.js";
import { Card } from "pattern-lens/features/card.js";
import { groupNote, groupsOf, groupTitle, number, placeLabel, tokenText } from "pattern-lens/features/words.js";

const THICKEST = 4;

export class Sequences {
  /** @param {import("./app.js").App} app @param {Function} pageLink */
  constructor(app, pageLink) {
    this.app = app;
    this.card = new Card(app, pageLink);
    this.groups = h("select", { id: "group", "aria-label": "group of sequences", onchange: () => app.go({ group: this.groups.value || null, token: null }) });
    this.legend = h("p", { class: "muted sequences-legend" });
    this.list = h("div", { class: "sequences", id: "sequences", dir: "ltr" });
    this.missing = h("p", { class: "muted missing", id: "no-sequences" });
    this.list.addEventListener("pointerover", (event) => this.hover(placeOf(event.target)));
    this.list.addEventListener("pointerleave", () => this.hover(null));
    this.list.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && this.hover(placeOf(event.target)));
    this.list.addEventListener("focusout", () => this.hover(null));
    this.list.addEventListener("click", (event) => this.lock(placeOf(event.target)));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.element = h(
      "section",
      { class: "features-panel sequences-panel", "aria-label": "sequences" },
      h("header", { class: "panel-head" }, h("h2", null, "What it fires on"), this.groups),
      this.legend,
      this.missing,
      this.list,
    );
  }

  show(one) {
    this.one = one;
    this.card.hide();
    const sequences = one.sequences ?? [];
    const largest = (key) => sequences.reduce((most, each) => Math.max(most, ...(each[key] ?? []).map((value) => Math.abs(value ?? 0))), 0);
    this.most = { activation: Math.max(Math.abs(one.max_activation ?? 0), largest("activation")), loss: largest("loss_effect") };
    this.writeMissing(one);
    this.writeLegend(one);
    this.pick();
  }

  /** Shows the group and the locked token that the address names. */
  pick() {
    if (!this.one) return;
    const { group, token } = this.app.state;
    if (this.shown !== this.one || this.group !== group) this.write(group);
    [this.shown, this.group] = [this.one, group];
    this.mark(token);
  }

  writeMissing(one) {
    const isSilent = one.n_active === 0 || one.max_activation === 0;
    let sentence = one.sequences ? "" : "Sequences are not computed of this feature.";
    if (isSilent) sentence = "It fires on none of the stored tokens, so there is nothing to show here.";
    else if (one.sequences && !one.sequences.length) sentence = "No sequence is stored of it.";
    this.missing.textContent = sentence;
    this.missing.hidden = !sentence;
    this.list.hidden = !one.sequences?.length;
    this.groups.hidden = this.list.hidden;
  }

  writeLegend(one) {
    this.legend.hidden = this.list.hidden;
    const hasLoss = this.most.loss > 0;
    const { loss_effect_method: method } = this.app.view.sae;
    replace(
      this.legend,
      h("span", { class: "legend-part" }, "0", h("span", { class: "activation-ramp", "aria-hidden": "true" }), `${number(this.most.activation)} activation`),
      hasLoss ? h("span", { class: "legend-part" }, h("span", { class: "legend-line is-worse", "aria-hidden": "true" }), "next token less likely without it") : null,
      hasLoss ? h("span", { class: "legend-part" }, h("span", { class: "legend-line is-better", "aria-hidden": "true" }), "more likely") : null,
      one.sequences?.length && !hasLoss ? h("span", null, "Effects on the loss are not computed.") : null,
      hasLoss && method ? h("span", { class: "legend-part" }, `ablated ${method}`) : null,
    );
  }

  write(group) {
    const { sequences, intervals } = this.one;
    const all = groupsOf(sequences ?? [], intervals);
    const shownGroup = all.includes(group) ? group : null;
    replace(
      this.groups,
      h("option", { value: "", selected: shownGroup === null }, "all groups"),
      all.map((name) => h("option", { value: name, selected: name === shownGroup }, groupTitle(name, intervals))),
    );
    this.isFirst = true;
    replace(this.list, all.filter((name) => shownGroup === null || name === shownGroup).map((name) => this.part(name, sequences ?? [], intervals)));
  }

  part(group, sequences, intervals) {
    const rows = sequences.map((sequence, i) => [sequence, i]).filter(([sequence]) => sequence.group === group);
    return h(
      "section",
      { class: `sequence-group${rows.length ? "" : " is-empty"}`, dataset: { group } },
      h("h3", null, groupTitle(group, intervals), " ", h("span", { class: "muted" }, groupNote(group, intervals))),
      rows.map(([sequence, i]) => this.row(sequence, i)),
    );
  }

  row(sequence, i) {
    const value = sequence.activation?.[sequence.peak] ?? null;
    return h(
      "div",
      { class: "sequence", role: "group", "aria-label": `in prompt ${sequence.prompt}`, dataset: { sequence: i, prompt: sequence.prompt } },
      h("span", { class: "sequence-value", title: "activation at the bold token" }, number(value)),
      h("span", { class: "sequence-tokens" }, sequence.start > 0 ? h("span", { class: "muted" }, "…") : null, sequence.tokens.map((_, place) => this.token(sequence, i, place))),
    );
  }

  token(sequence, i, place) {
    const { texts } = this.one;
    const activation = sequence.activation?.[place] ?? 0;
    const loss = sequence.loss_effect?.[place] ?? null;
    const isPeak = place === sequence.peak;
    const isFirst = this.isFirst && isPeak;
    if (isFirst) this.isFirst = false;
    const share = this.most.activation ? Math.sqrt(Math.abs(activation) / this.most.activation) : 0;
    const thick = this.most.loss && loss ? Math.max(Math.abs(loss) / this.most.loss > 0.02 ? 1 : 0, Math.round((THICKEST * Math.abs(loss)) / this.most.loss)) : 0;
    const says = activation ? `, activation ${number(activation)}` : "";
    const element = h(
      "span",
      {
        class: ["seq-token", isPeak && "is-peak", share > 0.55 && "is-strong", thick && (loss > 0 ? "is-worse" : "is-better")].filter(Boolean).join(" "),
        role: "button",
        tabindex: isFirst ? "0" : "-1",
        "aria-label": placeLabel(sequence, place, texts) + says,
        dataset: { sequence: i, place },
      },
      h("bdi", null, tokenText(texts, sequence.tokens[place])),
    );
    if (share) element.style.setProperty("--share", `${Math.round(90 * share)}%`);
    if (thick) element.style.setProperty("--thick", `${thick}px`);
    return element;
  }

  at({ sequence, place }) {
    return this.list.querySelector(`.seq-token[data-sequence="${sequence}"][data-place="${place}"]`);
  }

  /** A locked token stays while others are passed over. */
  hover(place) {
    if (this.app.state.token) return;
    if (place) this.card.show(this.one, place, this.at(place), { isLocked: false });
    else this.card.hide();
  }

  mark(token) {
    this.list.querySelector(".is-locked")?.classList.remove("is-locked");
    const element = token ? this.at(token) : null;
    const isNew = element !== null && element !== this.locked;
    this.locked = element;
    if (!element) {
      this.card.hide();
      return;
    }
    element.classList.add("is-locked");
    this.rove(element);
    if (isNew) element.scrollIntoView({ block: "nearest" });
    this.card.show(this.one, token, element, { isLocked: true });
  }

  /** The page was scrolled or has another size: what is locked keeps its card, which goes where it goes. */
  follow() {
    if (this.locked) this.card.place(this.locked);
    else this.card.hide();
  }

  lock(place) {
    if (!place) return;
    const { token } = this.app.state;
    const isSame = token?.sequence === place.sequence && token.place === place.place;
    this.app.go({ token: isSame ? null : place });
    if (isSame) this.hover(place);
  }

  unlock() {
    if (!this.app.state.token) return false;
    this.app.go({ token: null });
    return true;
  }

  rove(element) {
    for (const one of this.list.querySelectorAll('.seq-token[tabindex="0"]')) one.tabIndex = -1;
    element.tabIndex = 0;
  }

  onKey(event) {
    const place = placeOf(event.target);
    if (!place) return;
    if (event.key === "Enter" || event.key === " ") this.lock(place);
    else {
      const to = this.target(event.target, event.key);
      if (!to) return;
      this.rove(to);
      to.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  }

  target(element, key) {
    const tokens = [...element.parentElement.querySelectorAll(".seq-token")];
    const at = tokens.indexOf(element);
    if (key === "ArrowRight" || key === "ArrowLeft") return tokens[at + (key === "ArrowRight" ? 1 : -1)];
    if (key === "Home") return tokens[0];
    if (key === "End") return tokens.at(-1);
    if (key !== "ArrowDown" && key !== "ArrowUp") return null;
    const rows = [...this.list.querySelectorAll(".sequence")];
    const row = rows[rows.indexOf(element.closest(".sequence")) + (key === "ArrowDown" ? 1 : -1)];
    const there = [...(row?.querySelectorAll(".seq-token") ?? [])];
    return there[Math.min(at, there.length - 1)];
  }
}

/** Which token of which sequence an element is. */
function placeOf(target) {
  const element = target instanceof Element ? target.closest(".seq-token") : null;
  return element ? { sequence: Number(element.dataset.sequence), place: Number(element.dataset.place) } : null;
}
