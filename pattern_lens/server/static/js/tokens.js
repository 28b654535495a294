/**
 * Texts of tokens as people read them: nothing a token holds stays invisible, and nothing changes the text around it.
 * What these return is text for `textContent`; it is never markup.
 */

// The same marks as in pattern_lens/plots/labels.py.
const MARKS = { " ": "␣", "\u00a0": "␣", "\n": "⏎", "\r": "⏎", "\t": "⇥" };
// Joiners stay: scripts and emoji need them.
const HIDDEN = /[ \u00a0\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Co}]|(?![\u200c\u200d])\p{Cf}/gu;

// What turns the direction of the text after it.
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** What has no glyph, as its code: `\x00`, `\u200b`. */
function escape(character) {
  const code = character.codePointAt(0);
  const [letter, width] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${letter}${code.toString(16).padStart(width, "0")}`;
}

/**
 * The text with spaces, newlines, tabs and control characters visible.
 * @param {string} text
 * @returns {string}
 */
export function shown(text) {
  return text === "" ? "∅" : text.replace(HIDDEN, (character) => MARKS[character] ?? escape(character));
}

/** A sentence that names what strangers wrote: a name in it turns nothing around it. */
export function unturned(sentence) {
  return sentence.replace(TURNING, escape);
}

/**
 * A token as axes and lists name it: `12: the`. Repeated tokens stay apart by their index.
 * @param {number} index
 * @param {string} text
 * @returns {string}
 */
export function tokenLabel(index, text) {
  return `${index}: ${shown(text)}`;
}
