/** Names of files that are downloaded: model, head and prompt, with nothing that a file system refuses. */

/** `gpt2_L3H5_hash.csv`; what differs from the stored numbers is in the name. */
export function fileName({ model, label, prompt, isBosShown }, ending) {
  const parts = [model.id, label, prompt.key, ...(isBosShown ? [] : ["no-bos"])];
  return `${parts.join("_").replace(/[^A-Za-z0-9._@~-]/g, "-")}.${ending}`;
}

/** What a picture says above itself. */
export function titleOf({ model, label, prompt, isBosShown }) {
  return `${label} · ${model.name} · ${prompt.hash}${isBosShown ? "" : " · without BOS"}`;
}
