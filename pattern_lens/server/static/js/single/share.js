/** What leaves the page: the link, and files of what is shown. All but NetCDF is made in the browser, so it works offline. */
import { h } from "pattern-lens/dom.js";
import { csvOf } from "pattern-lens/single/csv.js";
import { pngOf, svgOf } from "pattern-lens/single/drawing.js";
import { fileName } from "pattern-lens/single/names.js";

const SAYS_FOR_MS = 1600;

export class Share {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.copier = h(
      "button",
      { type: "button", id: "copy-link", title: "copy the address of this view", onclick: () => this.copy() },
      "Copy link",
    );
    this.netcdf = h("a", { class: "button", id: "download-nc", title: "the labelled array, for xarray" }, "NetCDF");
    this.menu = h(
      "div",
      { id: "downloads", class: "popover download-popover", popover: "auto" },
      this.item("svg", "SVG", "a picture with labels as text", () => new Blob([svgOf(this.view)], { type: "image/svg+xml" })),
      this.item("png", "PNG", "a picture", () => pngOf(this.view)),
      this.item(
        "csv",
        "CSV",
        "a table: query, key, their tokens, exact values",
        () => new Blob(csvOf(this.view), { type: "text/csv;charset=utf-8" }),
      ),
      this.netcdf,
    );
    this.opener = h("button", { type: "button", id: "download", popovertarget: "downloads" }, "Download");
    this.says = h("span", { class: "hidden-text", role: "status" });
    this.element = h(
      "div",
      { class: "bar-group share", role: "group", "aria-label": "share" },
      this.copier,
      this.opener,
      this.menu,
      this.says,
    );
    this.menu.addEventListener("toggle", (event) => event.newState === "open" && this.place());
  }

  item(ending, name, title, make) {
    return h("button", { type: "button", id: `download-${ending}`, title, onclick: () => this.download(ending, make) }, name);
  }

  update(view) {
    this.view = view;
    const { model, prompt, label, head } = view;
    // A mean is no array of the file; the server has NetCDF of what the file holds.
    this.netcdf.hidden = !this.app.source.isLive || head === "x";
    this.netcdf.href = this.app.source.url(
      `api/${encodeURIComponent(model.id)}/prompt/${encodeURIComponent(prompt.key)}/pattern/${label}.nc`,
    );
    this.netcdf.download = fileName({ ...view, isBosShown: true }, "nc");
  }

  place() {
    const box = this.opener.getBoundingClientRect();
    this.menu.style.top = `${box.bottom + 4}px`;
    this.menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - this.menu.offsetWidth - 8))}px`;
  }

  async download(ending, make) {
    const name = fileName(this.view, ending);
    const url = URL.createObjectURL(await make());
    const anchor = h("a", { href: url, download: name });
    anchor.click();
    this.menu.hidePopover();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async copy() {
    this.app.writeAddressNow();
    const isCopied = await copied(location.href);
    this.say(isCopied ? "Copied" : "Copy it from the address bar");
  }

  say(text) {
    this.copier.textContent = text;
    this.says.textContent = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.copier.textContent = "Copy link";
    }, SAYS_FOR_MS);
  }
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedByHand(text);
  }
}

/** For pages of a plain address, where browsers keep the clipboard away. */
function copiedByHand(text) {
  const area = h("textarea", { class: "hidden-text", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  return isCopied;
}
