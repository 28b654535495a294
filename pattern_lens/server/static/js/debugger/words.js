/** What the debugger says in words: nodes, measures, ablations; the grammar is that of pattern_lens/tracing. */
import { shown, tokenLabel } from "pattern-lens/tokens.js";

/** Measures of a node: what they are called in addresses, above a column, and in a sentence. */
export const COLUMNS = [
  ["total", "total effect", "estimated total effect: activation × gradient, what the objective would lose if it were 0, to first order"],
  ["direct", "direct effect", "what it writes × the gradient of the stream that the objective, or the traced node, reads"],
  ["write", "write", "write magnitude: length of the vector that it adds to the residual stream"],
  ["activation", "activation", "attention probability, or activation of the neuron or latent"],
];

/** Measures that add or take away; the others are sizes. */
export const SIGNED = ["total", "direct"];

/** Kinds of nodes in the order of the filter. */
export const KINDS = {
  pair: ["attention", "a head, from one query to one key"],
  head: ["heads", "a head at one query, over all keys"],
  neuron: ["neurons", "a neuron of an MLP at one position"],
  attn: ["attention layers", "all heads of a layer at one position"],
  mlp: ["MLP layers", "all neurons of a layer at one position"],
  embed: ["embeddings", "token and position embedding of one position"],
  latent: ["latents", "a latent of an autoencoder at one position"],
  sae_error: ["errors", "what an autoencoder does not reconstruct"],
};

/** A number that adds or takes away. */
export function signed(value) {
  if (value === null || value === undefined) return "–";
  const text = number(value);
  return value > 0 ? `+${text}` : text;
}

/** A number in as many digits as people compare. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size >= 100 ? value.toFixed(1) : size >= 0.0005 || size === 0 ? value.toFixed(3) : value.toExponential(1);
  return text.replace("-", "−").replace("e-", "e−").replace("e+", "e");
}

const ATTENTION = /^L(\d+)H(\d+)@(\d+)(?:,(\d+))?$/;
const NEURON = /^L(\d+)N(\d+)@(\d+)$/;
const LAYER = /^(\d+)_(attn|mlp)_out@(\d+)$/;
const EMBEDDING = /^embed@(\d+)$/;
const LATENT = /^(.+?)(?:F(\d+)|\.error)@(\d+)$/;

/** The node that a label names; null for what is no label. */
export function parseNode(name) {
  const numbers = (pattern) => pattern.exec(name ?? "")?.slice(1);
  const attention = numbers(ATTENTION);
  if (attention) {
    const [layer, head, query, key] = attention.map((digits) => (digits === undefined ? null : Number(digits)));
    return { name, kind: key === null ? "head" : "pair", layer, head, query, key };
  }
  const neuron = numbers(NEURON)?.map(Number);
  if (neuron) return { name, kind: "neuron", layer: neuron[0], neuron: neuron[1], pos: neuron[2] };
  const layer = numbers(LAYER);
  if (layer) return { name, kind: layer[1], layer: Number(layer[0]), pos: Number(layer[2]) };
  const embedding = numbers(EMBEDDING);
  if (embedding) return { name, kind: "embed", pos: Number(embedding[0]) };
  const latent = numbers(LATENT);
  if (!latent) return null;
  const [sae, feature, pos] = latent;
  return { name, kind: feature === undefined ? "sae_error" : "latent", sae, feature: Number(feature ?? NaN), pos: Number(pos) };
}

/** What can be ablated of a node, the narrowest first: what is written, and what it says. */
export function ablationsOf({ kind, name, layer, head, neuron }) {
  if (kind === "pair") return [[name, "this attention"], [`L${layer}H${head}`, "the whole head"]];
  if (kind === "head") return [[name, "at this query"], [`L${layer}H${head}`, "the whole head"]];
  if (kind === "neuron") return [[name, "at this position"], [`L${layer}N${neuron}`, "at all positions"]];
  if (kind === "attn" || kind === "mlp") return [[name, "at this position"], [`${layer}_${kind}_out`, "at all positions"]];
  return kind === "embed" ? [[name, "this embedding"]] : [];
}

const PATHS = [
  ["Q", "what made the query look: through the score before the softmax"],
  ["K", "what made the key be found: through the score before the softmax"],
  ["QK", "both sides of the score before the softmax"],
  ["V", "what the attended value carries into the direction that is read"],
];

/** The ways upstream of a node: what the traced node is then called, what the button says, and what it means. */
export function tracesOf({ kind, name }, traced) {
  if (kind === "neuron") return [[name, "upstream", "what made this neuron fire"]];
  if (kind !== "pair") return [];
  return PATHS.map(([path, title]) => {
    const isRead = path === "V" && traced;
    return [`${name}:${path}${isRead ? `>${traced}` : ""}`, path, isRead ? `${title}: that of ${traced}` : title];
  });
}

/** Why there is no way upstream of a node. */
export function whyNoTrace({ kind }) {
  if (kind === "head") return "Choose a key: click a cell of the pattern, then trace from there.";
  if (kind === "latent" || kind === "sae_error") return "Tracing a latent needs its autoencoder, from Python.";
  return "Only attention and neurons can be traced upstream.";
}

/** Where a node is, as tokens: query and key, or one position. */
export function placesOf(node, tokens) {
  const label = (index) => tokenLabel(index, tokens[index] ?? "");
  if (node.kind === "pair") return `${label(node.query)} ← ${label(node.key)}`;
  if (node.kind === "head") return label(node.query);
  return label(node.pos);
}

/** The objective as people say it. */
export function objectiveText({ kind, target, distractor, position }) {
  const names = (tokens) => tokens.map(({ text }) => shown(text)).join(", ");
  const at = position === null || position === undefined ? "" : ` at ${position}`;
  if (kind === "logit_diff") return `logit of ${names(target)} − ${names(distractor)}${at}`;
  if (kind === "logit_minus_mean") return `logit of ${names(target)} − mean${at}`;
  if (kind === "probs") return `probability of ${names(target)}${at}`;
  if (kind === "direction") return `projection on a direction${at}`;
  return { zero: "zero", node: "activation of a node" }[kind] ?? kind;
}
