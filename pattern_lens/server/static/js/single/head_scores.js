/** Stored scores of a prompt's heads: what they are of, and where a head stands among all. */

const PREFERRED = /induction/i;

/**
 * Scores of one prompt, or their means over prompts where a score has none for it.
 * @returns {Promise<{name: string, title: string, units: string, isMean: boolean, nPrompts: number, values: (number | null)[][]}[]>}
 */
export async function loadScores(source, modelId, promptKey) {
  const [{ scores }, ofPrompt] = await Promise.all([source.scores(modelId), source.promptScores(modelId, promptKey)]);
  return scores.map((score) => {
    const own = ofPrompt.scores[score.name];
    const hasOwn = own?.flat().some((value) => value !== null) ?? false;
    return {
      name: score.name,
      title: score.long_name ?? "",
      units: score.units ?? "",
      nPrompts: score.n_prompts,
      isMean: !hasOwn,
      values: hasOwn ? own : score.mean,
    };
  });
}

/** The score that colours the map of heads first: what most people look for, else the first. */
export function firstScore(scores) {
  return scores.find(({ name }) => PREFERRED.test(name)) ?? scores[0];
}

/** Lowest and highest number of a score. */
export function extent({ values }) {
  const finite = values.flat().filter((value) => value !== null);
  return finite.length ? { min: Math.min(...finite), max: Math.max(...finite) } : { min: 0, max: 0 };
}

/** Rank from 1, highest first, and of how many; null where the head has no number. */
export function rankOf({ values }, { layer, head }) {
  const own = values[layer]?.[head];
  if (own === null || own === undefined) return null;
  const finite = values.flat().filter((value) => value !== null);
  return { value: own, rank: 1 + finite.filter((value) => value > own).length, of: finite.length };
}

/** 1st, 2nd, 3rd, 4th… */
export function ordinal(n) {
  const last = n % 100 >= 11 && n % 100 <= 13 ? 0 : n % 10;
  return `${n.toLocaleString("en")}${["th", "st", "nd", "rd"][last] ?? "th"}`;
}

/** A number as lists show it. */
export function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 0.001 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}
