/** Links within the single view: real addresses, followed in place by a plain click. */
import { h } from "pattern-lens/dom.js";

/** Whether a click asks for this very page, not for another tab or window. */
export function isPlain(event) {
  return event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
}

/**
 * A link to another state of this view.
 * @param {import("./app.js").App} app
 * @param {object} changes
 * @param {object} attributes
 * @param {...any} children
 */
export function link(app, changes, attributes, ...children) {
  const element = h("a", attributes, ...children);
  point(app, element, changes);
  element.addEventListener("click", (event) => {
    if (!isPlain(event)) return;
    event.preventDefault();
    if (element.changes) app.go(element.changes);
  });
  return element;
}

/** Lets a link lead elsewhere; `null`: nowhere. */
export function point(app, element, changes) {
  element.changes = changes;
  if (changes) element.setAttribute("href", app.address(changes));
  else element.removeAttribute("href");
  element.setAttribute("aria-disabled", String(!changes));
}
