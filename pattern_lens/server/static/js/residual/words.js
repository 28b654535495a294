/** What the residual view says in words: components, tokens, sums. */
import { shown, tokenLabel } from "pattern-lens/tokens.js";

/** A number of logits, signed where it adds or takes away. */
export function logits(value, isSigned = false) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(1);
  return `${isSigned && value > 0 ? "+" : ""}${text}`.replace("-", "−");
}

/** A probability as people compare them. */
export function percent(value) {
  if (value >= 0.0995) return `${(100 * value).toFixed(0)} %`;
  if (value >= 0.001) return `${(100 * value).toFixed(1)} %`;
  return value > 0 ? value.toExponential(0).replace("-", "−") : "0";
}

/** Where in the model a stream is read. */
export function streamTitle(name) {
  const match = /^(\d+)_pre$/.exec(name);
  if (name === "final_post") return "behind the last layer: what the model itself predicts from";
  if (name === "0_pre") return "in front of layer 0: the embeddings";
  return match ? `in front of layer ${match[1]}` : name;
}

/** What is shared out. */
export function whatOf({ answer, distractor }) {
  return distractor ? `${shown(answer.text)} over ${shown(distractor.text)}` : shown(answer.text);
}

const UNIT_NAMES = { component: "layers’ outputs", layer: "streams", head: "heads", neuron: "neurons" };

/** The sum of parts beside the model's own number. */
export function closure(found, softcap) {
  const what = found.distractor ? "logit difference" : "logit";
  const isStream = found.unit === "layer";
  const sum = isStream ? "The last stream gives" : "The parts sum to";
  const bias = found.unembed_bias ? ` (the unembedding’s bias adds ${logits(found.unembed_bias)} of it)` : "";
  const ours = `${sum} ${logits(found.logit)}${bias}`;
  const cap = softcap ? ` Logits are those before the soft cap at ${softcap}.` : "";
  if (found.model_logit === null)
    return `${ours}. The file holds the model’s own logits of the last position only, so there is nothing to compare with here.${cap}`;
  return `${ours}; the model’s ${what} is ${logits(found.model_logit)}: error ${errorText(found.closure_error)}.${cap}`;
}

function errorText(value) {
  return value === 0 ? "0" : value.toExponential(0).replace("e-", "e−").replace("e+", "e");
}

export function unitName(unit) {
  return UNIT_NAMES[unit];
}

export function placeOf(prompt, position) {
  return tokenLabel(position, prompt.tokens[position] ?? "");
}
