/** Heads whose patterns of this prompt are most like that of the head shown. */
import { h, replace } from "pattern-lens/dom.js";
import { paintBytes, table } from "pattern-lens/colours.js";
import { formatPlace, parseLabel } from "pattern-lens/heads.js";
import { link } from "pattern-lens/single/links.js";
import { hasHead } from "pattern-lens/single/resolve.js";

const MOST = 8;

export class Similar {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.list = h("div", { class: "similar" });
    this.element = h(
      "section",
      { class: "single-panel", "aria-label": "heads like this", hidden: true },
      h(
        "header",
        { class: "panel-head" },
        h("h2", null, "Heads like this"),
        h("span", { class: "muted", title: "cosine of the two patterns as vectors, 0 to 1" }, "cosine"),
      ),
      this.list,
    );
  }

  update(view) {
    this.element.classList.add("is-old");
    if (view.head === "x") this.element.hidden = true;
  }

  async load(view) {
    if (view.head === "x") return;
    const found = await this.found(view).catch((error) => {
      this.element.hidden = true;
      throw error;
    });
    const pictures = await this.app.source.pictures(
      view.model.id,
      view.prompt.key,
      found.map(({ place }) => place),
    );
    if (this.app.view !== view) return;
    replace(
      this.list,
      found.map((each) => this.one(view, each, pictures.get(each.head))),
    );
    this.element.hidden = !found.length;
    this.element.classList.remove("is-old");
  }

  async found({ model, prompt, label }) {
    const { similar } = await this.app.source.similar(model.id, prompt.key, label);
    return similar
      .map((each) => ({ ...each, place: parseLabel(each.head) }))
      .filter(({ place }) => place && hasHead(model, ...place))
      .slice(0, MOST);
  }

  one(view, { head, similarity, place }, picture) {
    const canvas = h("canvas", { class: "thumb", "aria-hidden": "true" });
    paintBytes(canvas, picture, table(view.map, view.scale));
    const changes = { head: formatPlace(view.model.id, ...place) };
    return link(
      this.app,
      changes,
      { class: "like", title: `${head}: cosine ${similarity.toFixed(4)}` },
      canvas,
      h("span", null, head),
      h("span", { class: "muted" }, similarity.toFixed(2)),
    );
  }
}
