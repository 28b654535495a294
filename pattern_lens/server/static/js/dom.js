/** Elements made from text. Nothing in this application is ever parsed as HTML: prompt text is not trusted. */

/**
 * An element with attributes and children.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `onclick` and the like are listeners; `class`, `dataset` and `style`
 *   (through the CSSOM: the page's policy forbids style attributes) are what they say; `true` is an attribute
 *   without a value; `false`, `null` and `undefined` leave it out; `value` and `checked` are properties
 * @param {...any} children text, nodes, lists of them; `null`, `undefined` and `false` are left out
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) setAttribute(element, name, value);
  append(element, children);
  return element;
}

/** Puts new children in the place of the old ones. */
export function replace(element, ...children) {
  element.textContent = "";
  append(element, children);
  return element;
}

/** An option of a `<select>`. */
export function option(value, text, isSelected = false) {
  return h("option", { value, selected: isSelected }, text);
}

/** A drawing made of lines, 16 × 16, in the colour of the text around it. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" })) {
    svg.setAttribute(name, value);
  }
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "indeterminate", "selected"]);

function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name === "style") setStyle(element, value);
  else if (PROPERTIES.has(name)) element[name] = value;
  else element.setAttribute(name, value === true ? "" : String(value));
}

function setStyle(element, style) {
  for (const [property, value] of Object.entries(style)) {
    if (property.startsWith("--")) element.style.setProperty(property, value);
    else element.style[property] = value;
  }
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}
