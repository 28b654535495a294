/** Starts the application and shows the page that the address names; going between the pages loads nothing anew. */
import { h, replace } from "pattern-lens/dom.js";
import { mountHeader } from "pattern-lens/header.js";
import { showNotices } from "pattern-lens/notices.js";
import { openSource } from "pattern-lens/source.js";
import { onState, pushState, readState, replaceState, setTheme } from "pattern-lens/state.js";
import { rememberedTheme } from "pattern-lens/theme.js";

const PAGES = {
  gallery: async () => (await import("pattern-lens/gallery/view.js")).mountGallery,
  single: async () => (await import("pattern-lens/single/view.js")).mountSingle,
  residual: async () => (await import("pattern-lens/residual/view.js")).mountResidual,
  debugger: async () => (await import("pattern-lens/debugger/view.js")).mountDebugger,
  features: async () => (await import("pattern-lens/features/view.js")).mountFeatures,
};

const root = document.getElementById("view");
let unmount = () => {};
let shown = 0;

setTheme(rememberedTheme());
start(readState(location));

async function start(state) {
  const page = PAGES[state.page]();
  page.catch(() => {});
  let source;
  try {
    source = await openSource();
  } catch (error) {
    showFailure(error);
    return;
  }
  // The view first: what it needs is then on its way while the bar is made.
  await show(state);
  mountHeader(document.getElementById("header"), await source.index(), { currentState: () => state, navigate: go });
  onState(show);

  /** A click on a link within the application, or a key. */
  function go(page, next) {
    const target = { ...next, page, notes: [] };
    pushState(target);
    return show(target);
  }

  async function show(next) {
    const turn = ++shown;
    try {
      const mount = await PAGES[next.page]();
      // Whoever clicked on since then is elsewhere.
      if (turn !== shown) return;
      leave();
      state = next;
      showNotices("address", next.notes);
      unmount = mount(root, source, next, go) ?? (() => {});
      replaceState(next);
    } catch (error) {
      if (turn === shown) showFailure(error);
    }
  }
}

function leave() {
  unmount();
  unmount = () => {};
  delete document.documentElement.dataset.ready;
  replace(root);
  root.className = "view";
}

function showFailure(error) {
  leave();
  replace(root, h("div", { class: "message", role: "alert" }, h("b", {}, "This page could not be shown"), error.message));
  // A fault of the application itself belongs in the console, with its place; a sentence of the server does not.
  if (error.name !== "SourceError") console.error(error);
}
