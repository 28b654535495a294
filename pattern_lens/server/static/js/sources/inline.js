/** Answers inside the page: JSON as it is, bytes as base64 (of gzip, where the list `gzip` names them or is true). */
import { SourceError } from "pattern-lens/error.js";
import { wholeLayers } from "pattern-lens/pictures.js";

const TYPES = {
  svg: "image/svg+xml",
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
  pdf: "application/pdf",
};
const MAX_URLS = 256;

export function openInline(element) {
  const { answers, gzip = [] } = JSON.parse(element.textContent);
  // The text of a page of many megabytes is not needed twice.
  element.textContent = "";
  const isZipped = gzip === true ? () => true : (path) => gzip.includes(path);
  const bytes = async (path) => {
    const found = answer(answers, path);
    if (typeof found !== "string") return new TextEncoder().encode(JSON.stringify(found)).buffer;
    return isZipped(path) ? unzip(decode(found)) : decode(found).buffer;
  };
  const json = async (path) => {
    const found = answer(answers, path);
    if (typeof found !== "string") return { value: found, sizeBytes: 0 };
    const text = new TextDecoder().decode(await bytes(path));
    return { value: JSON.parse(text), sizeBytes: text.length };
  };
  return { bytes, json, url: urls(answers), pictures: wholeLayers };
}

function answer(answers, path) {
  const name = Object.hasOwn(answers, path) ? path : decodeURIComponent(path);
  if (Object.hasOwn(answers, name)) return answers[name];
  throw new SourceError("This page does not hold it: it was exported with fewer heads, prompts, figures or features.", 404);
}

/** Addresses of what is inside, made once each; the oldest are given back. */
function urls(answers) {
  const made = new Map();
  return (href) => {
    if (!Object.hasOwn(answers, href)) return href;
    if (!made.has(href)) {
      const blob = new Blob([decode(answers[href])], {
        type: TYPES[href.split(".").at(-1).toLowerCase()] ?? "application/octet-stream",
      });
      made.set(href, URL.createObjectURL(blob));
    }
    if (made.size > MAX_URLS) {
      const [oldest, url] = made.entries().next().value;
      made.delete(oldest);
      URL.revokeObjectURL(url);
    }
    return made.get(href);
  };
}

function decode(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function unzip(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
