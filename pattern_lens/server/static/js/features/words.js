/** What the page of features says in words and numbers. */
import { shown, tokenLabel } from "pattern-lens/tokens.js";

/** Columns of the table of all features: what addresses call them, what stands above, what they mean, and where they are. */
export const COLUMNS = [
  ["feature", "feature", "number of the feature", "feature"],
  ["logit", "raises", "the token whose logit it raises most, sorted by how much", "top_logit"],
  ["density", "density", "share of the tokens on which it fires", "density"],
  ["max", "max", "its largest activation", "max_activation"],
  ["neuron", "neuron r", "Pearson correlation with the most correlated neuron", "neuron_pearson"],
  ["correlation", "feat. r", "Pearson correlation with the most correlated other feature", "feature_pearson"],
];

export const GROUP_NAMES = { top: "Top activations", bottom: "Bottom activations", random: "Random" };

/** A number in three digits that are worth something. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return minus(Math.round(value).toLocaleString("en"));
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const text = size === 0 || size >= 0.0005 ? value.toFixed(digits) : value.toExponential(1);
  return minus(text).replace("e+", "e");
}

/** A number that adds or takes away. */
export function signed(value) {
  const text = number(value);
  return value > 0 ? `+${text}` : text;
}

/** A share as per cent. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.001) return `${minus(value.toExponential(0))} %`;
  return `${value.toFixed(value >= 10 ? 0 : value >= 1 ? 1 : value >= 0.1 ? 2 : 3)} %`;
}

function minus(text) {
  return text.replaceAll("-", "−");
}

/** Name of a group of sequences: an interval says its range and how many of the active tokens lie in it. */
export function groupTitle(group, intervals) {
  if (Object.hasOwn(GROUP_NAMES, group)) return GROUP_NAMES[group];
  const at = Number(group);
  const [low, high] = [intervals?.low[at], intervals?.high[at]];
  return low === undefined || low === null ? `Interval ${at + 1}` : `${number(low)} – ${number(high)}`;
}

/** What stands beside the name of a group. */
export function groupNote(group, intervals) {
  const share = intervals?.share[Number(group)];
  return share === undefined || share === null ? "" : `${percent(share)} of the tokens it fires on`;
}

/** The order of groups on the page: the strongest first. */
export function groupsOf(sequences, intervals) {
  const there = new Set(sequences.map(({ group }) => group));
  const numbered = Array.from({ length: intervals?.low.length ?? 0 }, (_, i) => String(i));
  const more = [...there].filter((group) => /^[0-9]+$/.test(group) && !numbered.includes(group));
  const inner = [...numbered, ...more].sort((a, b) => Number(b) - Number(a));
  return ["top", ...inner, "bottom", "random"].filter((group) => there.has(group) || inner.includes(group));
}

/** A neuron where the autoencoder reads neurons, else a dimension of what it reads. */
export function neuronLabel({ hook, layer }, neuron) {
  return /mlp\.hook_(post|pre)$/.test(hook ?? "") ? `L${layer}N${neuron}` : `dimension ${neuron}`;
}

/** A token of a sequence with its position in the prompt. */
export function placeLabel(sequence, place, texts) {
  return tokenLabel(sequence.start + place, texts[sequence.tokens[place]] ?? "");
}

/** The text of a token, visible. */
export function tokenText(texts, id) {
  return shown(texts[id] ?? `<${id}>`);
}
