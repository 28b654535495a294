/** Answers as files beside the page. */
import { SourceError } from "pattern-lens/error.js";
import { wholeLayers } from "pattern-lens/pictures.js";

export function openFolder() {
  return { bytes: fetchBytes, json: fetchJson, url: (href) => href, pictures: wholeLayers };
}

/** @returns {Promise<ArrayBuffer>} */
export async function fetchBytes(path) {
  return (await fetchAnswer(path)).arrayBuffer();
}

export async function fetchJson(path) {
  const text = await (await fetchAnswer(path)).text();
  return { value: parse(text, path), sizeBytes: text.length };
}

/** An answer that says yes; else the sentence that the server says. */
export async function fetchAnswer(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new SourceError("The server does not answer. Is pattern-lens still running?");
  }
  if (answer.ok || answer.status === 304) return answer;
  throw new SourceError(await sentence(answer, path), answer.status);
}

async function sentence(answer, path) {
  const unknown = `“${path}” is not here (the server answered ${answer.status}).`;
  try {
    return (await answer.json()).error ?? unknown;
  } catch {
    return unknown;
  }
}

function parse(text, path) {
  try {
    return JSON.parse(text);
  } catch {
    throw new SourceError(`“${path}” is damaged: it is not JSON.`);
  }
}
