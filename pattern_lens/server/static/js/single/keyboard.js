/** Keys of the single view: held arrows repeat, two of them move along the diagonal. */

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const FIRST_REPEAT_MS = 260;
const REPEAT_MS = 45;
const FAR = 10;

/** Every key and what it does, as the help lists them. */
export const KEYS = [
  ["← ↑ → ↓", "move the locked cell; hold two for the diagonal"],
  ["Ctrl + arrow", "move ten cells"],
  ["Home, End", "first key, last key of the query"],
  ["Ctrl + Home, End", "first query, last query"],
  ["Enter", "lock or unlock the cell"],
  ["Esc", "unlock"],
  ["[ and ]", "previous, next head"],
  ["{ and }", "previous, next layer"],
  ["p and n", "previous, next prompt"],
  ["a", "mean over the heads of the layer, and back"],
  ["b", "BOS key in or out"],
  ["l", "linear or log colours"],
  ["g", "write a head, such as L3H5"],
  ["/", "search the prompts"],
];

function isTyping(target) {
  return target instanceof Element && target.closest("input, select, textarea, dialog, [popover], [contenteditable]") !== null;
}

/** Whether Enter presses what has the focus. */
function isPressing(event) {
  return event.key === "Enter" && event.target instanceof Element && event.target.closest("button, a, summary") !== null;
}

/**
 * Listens to the keyboard until the returned function is called.
 * @param {{move: (query: number, key: number) => void, jump: (where: string, isFar: boolean) => void, press: (key: string) => boolean}} actions
 *   `press` answers whether it knew the key.
 */
export function listenToKeys(actions) {
  const held = new Set();
  let timer = null;
  let steps = 1;

  const step = () => {
    const moves = [...held].map((key) => ARROWS[key]);
    actions.move(steps * moves.reduce((sum, move) => sum + move[0], 0), steps * moves.reduce((sum, move) => sum + move[1], 0));
  };
  const release = () => {
    held.clear();
    clearTimeout(timer);
  };
  const repeat = () => {
    step();
    timer = setTimeout(repeat, REPEAT_MS);
  };
  const arrow = (event) => {
    event.preventDefault();
    steps = event.ctrlKey || event.metaKey ? FAR : 1;
    if (event.repeat || held.has(event.key)) return;
    const [query, key] = ARROWS[event.key];
    held.add(event.key);
    actions.move(steps * query, steps * key);
    clearTimeout(timer);
    timer = setTimeout(repeat, FIRST_REPEAT_MS);
  };
  const down = (event) => {
    if (isTyping(event.target) || isPressing(event) || event.altKey) return;
    if (event.key in ARROWS) arrow(event);
    else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      actions.jump(event.key, event.ctrlKey || event.metaKey);
    } else if (!event.ctrlKey && !event.metaKey && actions.press(event.key)) event.preventDefault();
  };
  const up = (event) => {
    held.delete(event.key);
    if (event.key === "Control" || event.key === "Meta") steps = 1;
    if (!held.size) release();
  };

  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  window.addEventListener("blur", release);
  return () => {
    release();
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
    window.removeEventListener("blur", release);
  };
}
