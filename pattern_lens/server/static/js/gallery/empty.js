/** Why there is nothing to see, and what to do about it. */

/** @returns {{title: string, sentence: string, canChooseAll?: boolean} | null} null: there are pictures */
export function emptiness(model, { items, shown }) {
  if (items.length > 0) return null;
  if (model.index.models.length === 0) return says("No file is open", "Give the server a file: pattern-lens serve FILE");
  if (model.models.length === 0)
    return says("No file can be shown", model.index.models.map((one) => `${one.file}: ${one.error}`).join(" "));
  if (shown.length === 0) return says("No model is chosen", "Choose one in the table on the left.");
  const empty = shown.filter((one) => one.model.n_prompts === 0);
  if (empty.length === shown.length) return noPrompts(empty.map((one) => one.model));
  if (shown.every((one) => one.heads.length === 0))
    return { ...says("No head is chosen", "Click in the map on the left, or write for example L0-3H2."), canChooseAll: true };
  if (shown.every((one) => one.prompts.length === 0)) return says("No prompt is chosen", "Click one in the table on the left.");
  const functions = model.functions();
  if (functions.length === 0) return says("No figure is chosen", "Choose one in the list on the left.");
  if (functions.includes("raw") && shown.every((one) => !one.model.patterns))
    return says("No attention patterns here", "The file holds none; figures that it holds are listed on the left.");
  return says(
    "Nothing to show",
    `No figure ${functions.map((name) => `“${name}”`).join(" or ")} is stored for the chosen heads and prompts.`,
  );
}

function noPrompts(models) {
  const files = models.map((model) => model.file).join(", ");
  return says("No prompt yet", `${files} holds no prompt. Prompts appear here as soon as a capture stores them.`);
}

function says(title, sentence) {
  return { title, sentence };
}
