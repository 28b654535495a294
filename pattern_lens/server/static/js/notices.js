/** Sentences above the view: what the address held and nobody knows, what the server says. */
import { h, icon, replace } from "pattern-lens/dom.js";
import { unturned } from "pattern-lens/tokens.js";

const CLOSE = "M4 4l8 8M12 4l-8 8";
const byTopic = new Map();

/**
 * Shows the sentences of a topic in place of its earlier ones.
 *
 * @param {string} topic
 * @param {string[]} sentences
 * @param {{isError?: boolean}} [options]
 */
export function showNotices(topic, sentences, { isError = false } = {}) {
  if (sentences.length === 0 && !byTopic.has(topic)) return;
  byTopic.set(topic, { sentences: [...new Set(sentences)], isError });
  if (sentences.length === 0) byTopic.delete(topic);
  const close = (closed) => showNotices(closed, []);
  replace(
    document.getElementById("notices"),
    [...byTopic].map(([name, { sentences: lines, isError: bad }]) =>
      h(
        "div",
        { class: bad ? "notice is-error" : "notice", dataset: { topic: name } },
        h(
          "span",
          {},
          lines.map((line) => h("div", {}, unturned(line))),
        ),
        h("button", { class: "quiet", "aria-label": "Close this message", onclick: () => close(name) }, icon(CLOSE)),
      ),
    ),
  );
}
