/** Words for pictures: captions, headings, labels, what hovering says. */
import { formatPlace, label } from "pattern-lens/heads.js";
import { scoreText } from "pattern-lens/gallery/scores.js";
import { scoreTitle } from "pattern-lens/scores.js";
import { address } from "pattern-lens/state.js";

// Smaller pictures have no room for a caption.
const CAPTION_FROM = 64;
const TITLE_LENGTH = 90;

export class Describer {
  #hasSeveral = { model: false, prompt: false, function: false };

  constructor(model, scores, collection) {
    Object.assign(this, { model, scores, collection });
  }

  /** Looks at what is shown now: captions say what differs. */
  update() {
    const { shown } = this.collection;
    const prompts = new Set(shown.flatMap((one) => one.prompts.map((prompt) => prompt.hash)));
    this.#hasSeveral = { model: shown.length > 1, prompt: prompts.size > 1, function: this.model.functions().length > 1 };
    // Headings say what the pictures under them have in common.
    this.#hasSeveral[this.model.state.sort.replace(/^-/, "") || "model"] = false;
    this.scoreName = this.collection.isByScore ? this.model.state.sort.replace(/^-?score\./s, "") : null;
  }

  get hasCaptions() {
    const { captions, size } = this.model.state;
    return captions ?? size >= CAPTION_FROM;
  }

  /** Whether captions need a second line. */
  get hasMore() {
    const { model, prompt, function: figure } = this.#hasSeveral;
    return model || prompt || figure;
  }

  tile(item, colour) {
    const score = this.scoreName === null ? "" : scoreText(this.scores.of(item, this.scoreName));
    return {
      href: this.#href(item),
      title: this.#label(item),
      head: headName(item),
      score,
      more: this.#more(item),
      colour,
      size: this.model.state.size,
    };
  }

  tooltip(item) {
    if (!item) return null;
    const known = item.head === null ? [] : this.scores.known([item.model]);
    const lines = known.map((score) => {
      const of = this.scores.isOfPrompt(item, score.name) ? "" : ", mean";
      return [`${scoreTitle(score.name)}${of}`, scoreText(this.scores.of(item, score.name)), score.name === this.scoreName];
    });
    return { title: this.#title(item), lines, text: item.prompt?.text ?? null, error: item.figure?.error ?? null };
  }

  /** What items are told apart by; the same for items under one heading. */
  id(item, property) {
    if (property === "prompt") return item.prompt?.hash ?? "";
    if (property === "model") return item.model.id;
    if (property === "function") return item.name;
    return item[property] ?? -1;
  }

  text(item, property) {
    if (property === "prompt") return promptTitle(item.prompt);
    if (property === "model") return item.model.title;
    if (property === "function") return item.name;
    if (item[property] === null) return property === "layer" ? "no one layer" : "no one head";
    return `${property === "layer" ? "Layer" : "Head"} ${item[property]}`;
  }

  /** What a picture is called where it cannot be seen. */
  #label(item) {
    const title = this.#title(item);
    return this.#hasSeveral.prompt && item.prompt ? `${title} · ${promptTitle(item.prompt)}` : title;
  }

  #title(item) {
    const parts = [headName(item), item.name === "raw" ? null : item.name, item.model.title];
    return parts.filter(Boolean).join(" · ");
  }

  #more(item) {
    const { model, prompt, function: figure } = this.#hasSeveral;
    return [figure && item.name, model && item.model.title, prompt && (item.prompt ? item.prompt.text : "whole file")]
      .filter(Boolean)
      .join(" · ");
  }

  #href({ model, prompt, layer, head }) {
    return address("single", {
      ...this.model.state,
      prompt: prompt?.hash ?? null,
      head: formatPlace(model.id, layer ?? "x", head ?? "x"),
      cell: null,
    });
  }
}

function headName({ layer, head, prompt }) {
  if (head !== null) return label(layer, head);
  if (layer !== null) return `L${layer}`;
  return prompt ? "whole prompt" : "whole file";
}

function promptTitle(prompt) {
  if (!prompt) return "whole file";
  const { text } = prompt;
  return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH)}…` : text;
}
