/** Answers of a running `pattern-lens serve`. */
import { SourceError } from "pattern-lens/error.js";
import { formatHeads, label, parseHeads } from "pattern-lens/heads.js";
import { parseNpy } from "pattern-lens/npy.js";
import { fetchAnswer, fetchBytes, fetchJson } from "pattern-lens/sources/folder.js";

const WATCH_MS = 5000;

export function openLive() {
  return { bytes: fetchBytes, json: fetchJson, url: (href) => href, pictures: chosenHeads, watch };
}

/** The chosen heads of a prompt in one answer. @returns {Promise<Map<string, Uint8Array>>} packed values by label */
async function chosenHeads(model, path, heads) {
  const text = formatHeads(heads, model.n_layers, model.n_heads, "~");
  const { data, shape } = parseNpy(await fetchBytes(`${path}/pictures.npy?heads=${text}`));
  const inOrder = parseHeads(text, model.n_layers, model.n_heads).heads;
  const size = shape[1];
  return new Map(inOrder.map(([layer, head], i) => [label(layer, head), data.subarray(i * size, (i + 1) * size)]));
}

/** Asks now and then whether the index is another one than that which is known. */
function watch(callback, known) {
  let etag = null;
  let last = JSON.stringify(known);
  let isAway = false;
  const look = async () => {
    if (document.hidden) return;
    try {
      // "no-store": the browser's own cache would answer with what it holds and hide whether something changed.
      const answer = await fetchAnswer("api/index.json", { cache: "no-store", headers: etag ? { "If-None-Match": etag } : {} });
      etag = answer.headers.get("ETag") ?? etag;
      const index = answer.status === 304 ? null : await answer.json();
      const isNew = index !== null && JSON.stringify(index) !== last;
      if (isNew) last = JSON.stringify(index);
      if (isNew || isAway) callback(JSON.parse(last), null);
      isAway = false;
    } catch (error) {
      if (!isAway) callback(null, error instanceof SourceError ? error : new SourceError(error.message));
      isAway = true;
    }
  };
  const timer = setInterval(look, WATCH_MS);
  return () => clearInterval(timer);
}
