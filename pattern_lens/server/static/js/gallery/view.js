/** The gallery: the panel in which things are chosen, and the pictures of what is chosen. It shows at once. */
import { loadColours } from "pattern-lens/colours.js";
import { Gallery } from "pattern-lens/gallery/gallery.js";
import { GalleryModel } from "pattern-lens/gallery/model.js";
import { isTyping } from "pattern-lens/header.js";
import { showNotices } from "pattern-lens/notices.js";
import { address } from "pattern-lens/state.js";

/** Where each gallery was scrolled to, for who comes back to it. */
const scrolled = new Map();
const MAX_SCROLLED = 50;

/**
 * @param {HTMLElement} root
 * @param {import("pattern-lens/source.js").Source} source
 * @param {import("pattern-lens/state.js").State} state
 * @param {(page: string, state: object) => void} navigate
 * @returns {() => void} takes the gallery away
 */
export function mountGallery(root, source, state, navigate) {
  let gallery = null;
  let isGone = false;
  let stopWatching = () => {};
  const onKey = (event) => gallery?.onKey(event, isTyping(event.target));
  addEventListener("keydown", onKey);
  open();
  return () => {
    isGone = true;
    removeEventListener("keydown", onKey);
    stopWatching();
    if (gallery) remember(address("gallery", state), gallery.grid.element.scrollTop);
    gallery?.close();
    for (const topic of ["files", "names", "server", "search", "chosen", "many"]) showNotices(topic, []);
  };

  /** Sees to it that what the first pictures need is on its way while the page is built. */
  async function prepare() {
    const index = await source.index();
    const model = new GalleryModel(source, index, state);
    for (const one of model.chosenModels()) model.promptsOf(one).catch(() => {});
    await loadColours(source);
    return index;
  }

  async function open() {
    const index = await prepare().catch((error) => {
      showNotices("server", [error.message], { isError: true });
      return null;
    });
    if (isGone || !index) return;
    gallery = new Gallery(root, source, index, state, navigate);
    gallery.scrollTo(scrolled.get(address("gallery", state)) ?? 0);
    stopWatching = source.watch((changed, error) => {
      showNotices("server", error ? [error.message] : [], { isError: true });
      if (changed) gallery.setIndex(changed);
    });
  }
}

function remember(place, top) {
  scrolled.delete(place);
  scrolled.set(place, top);
  if (scrolled.size > MAX_SCROLLED) scrolled.delete(scrolled.keys().next().value);
}
