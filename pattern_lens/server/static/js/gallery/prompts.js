/** Prompts of the chosen models as a table with filters, order and pages, and which of them are chosen. */
import { h, option, replace } from "pattern-lens/dom.js";
import { EVERY, isEvery, promptName } from "pattern-lens/gallery/model.js";
import { openTable } from "pattern-lens/gallery/table.js";
import { showNotices } from "pattern-lens/notices.js";

const SEARCH_MS = 250;
// An address that holds more hashes is longer than servers take.
const MAX_CHOSEN = 2000;

export class PromptsPanel {
  rows = [];
  #shown = [];
  #anchor = null;
  #timer = 0;

  constructor(app) {
    this.app = app;
    const { state } = app.model;
    this.find = h("input", {
      id: "find",
      type: "search",
      placeholder: "text or hash",
      value: state.find,
      oninput: () => this.#filter({ find: this.find.value }),
    });
    this.dataset = h("select", { id: "dataset", onchange: () => this.#filter({ dataset: this.dataset.value }) });
    this.least = this.#tokens("min-tokens", "At least so many tokens", "min");
    this.most = this.#tokens("max-tokens", "At most so many tokens", "max");
    this.count = h("span", { class: "muted", id: "prompt-count", "aria-live": "polite" });
    this.growing = h(
      "span",
      { class: "badge", hidden: true, title: "A run is writing into the file; what it stores appears here." },
      "growing",
    );
    this.all = h("button", { class: "link", onclick: () => this.#chooseShown() }, "choose all shown");
    this.datasetField = h("label", { class: "field" }, h("span", {}, "Dataset"), this.dataset);
    this.place = h("div", { class: "prompts-table" });
    this.element = h(
      "section",
      { class: "part prompts", "aria-labelledby": "prompts-title" },
      h(
        "div",
        { class: "row" },
        h("h2", { id: "prompts-title" }, "Prompts"),
        this.count,
        this.growing,
        h("span", { class: "spring" }),
        this.all,
      ),
      h(
        "div",
        { class: "row filters" },
        h("label", { class: "field grow" }, h("span", {}, "Find"), this.find),
        this.datasetField,
        h("span", { class: "field" }, h("span", {}, "Tokens"), this.least, "–", this.most),
      ),
      this.place,
    );
  }

  /** Puts the table in place; the first call loads the library. */
  async load(models) {
    this.rows = rowsOf(models, this.app.model.lists);
    this.hasSeveral = models.length > 1;
    this.table ??= await openTable(this.place, {
      onChoose: (hash, how) => this.#choose(hash, how),
      isChosen: (hash) => this.chosen().has(hash),
    });
    this.#updateDatasets();
    this.refilter();
  }

  update() {
    this.table?.refreshChosen();
    this.#updateCount();
  }

  /** Hashes that are chosen, as the state or, before anything was chosen, the gallery says. */
  chosen() {
    const { prompts } = this.app.model.state;
    if (isEvery(prompts)) return new Set(this.rows.map((row) => row.name));
    return new Set(prompts ?? this.app.shownPrompts().map(promptName));
  }

  refilter() {
    const { find, dataset, "min-tokens": least, "max-tokens": most } = this.app.model.state;
    const words = find.toLocaleLowerCase();
    this.#shown = this.rows.filter(
      (row) =>
        (!words || row.lower.includes(words) || row.hash.toLocaleLowerCase().includes(words)) &&
        (!dataset || row.dataset === dataset) &&
        row.n_tokens >= (least ?? 0) &&
        row.n_tokens <= (most ?? Infinity),
    );
    this.table?.setRows(this.#shown, this.hasSeveral);
    this.#updateCount();
    this.#searchFurther(words);
  }

  /** The prompt before or after the chosen one, of those shown. */
  step(by) {
    const rows = this.table ? this.table.ordered() : this.#shown;
    if (rows.length === 0) return;
    const chosen = this.chosen();
    const at = rows.findIndex((row) => chosen.has(row.name));
    const next = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))];
    this.app.change({ prompts: [next.name] });
    this.table?.goTo(next);
  }

  close() {
    clearTimeout(this.#timer);
    this.table?.close();
  }

  /** Where one end of the range of lengths is written; it is the parameter of that name. */
  #tokens(name, label, placeholder) {
    return h("input", {
      id: name,
      type: "number",
      min: "0",
      class: "short",
      "aria-label": label,
      placeholder,
      value: this.app.model.state[name] ?? "",
      oninput: (event) => this.#filter({ [name]: /^[0-9]{1,9}$/.test(event.target.value) ? Number(event.target.value) : null }),
    });
  }

  #filter(patch) {
    this.app.change(patch, { isQuiet: true });
    this.refilter();
  }

  /** Lists end at 20,000 prompts; a server finds those beyond. */
  #searchFurther(words) {
    clearTimeout(this.#timer);
    const { source, model } = this.app;
    const long = model.chosenModels().filter((one) => model.lists.get(one.id)?.isComplete === false);
    if (!words || !source.isLive || long.length === 0) return;
    this.#timer = setTimeout(async () => {
      try {
        for (const one of long) {
          const { prompts } = await source.search(one.id, words);
          model.addFound(one, prompts);
          const known = new Set(this.rows.map((row) => row.hash));
          this.rows.push(...prompts.filter((prompt) => !known.has(prompt.hash)).map((prompt) => row(prompt, one)));
        }
        const isNew = this.rows.length !== this.#searched;
        this.#searched = this.rows.length;
        if (isNew) this.refilter();
      } catch (error) {
        showNotices("search", [error.message], { isError: true });
      }
    }, SEARCH_MS);
  }

  #searched = -1;

  #updateDatasets() {
    const counts = new Map();
    for (const { dataset } of this.rows) if (dataset !== null) counts.set(dataset, (counts.get(dataset) ?? 0) + 1);
    const wanted = this.app.model.state.dataset;
    if (wanted && !counts.has(wanted)) counts.set(wanted, 0);
    this.datasetField.hidden = counts.size === 0;
    replace(
      this.dataset,
      option("", "all"),
      [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([name, n]) => option(name, `${name} (${n.toLocaleString("en")})`)),
    );
    this.dataset.value = wanted;
  }

  #updateCount() {
    const n = this.rows.length;
    const total = this.app.model.chosenModels().reduce((most, one) => Math.max(most, one.n_prompts), 0);
    const shown = this.#shown.length < n ? `${this.#shown.length.toLocaleString("en")} found · ` : "";
    this.count.textContent = `${shown}${this.chosen().size.toLocaleString("en")} of ${Math.max(n, total).toLocaleString("en")} chosen`;
    this.growing.hidden = !this.app.model.chosenModels().some((one) => one.is_written);
    this.all.hidden = this.#shown.length < 2;
    this.all.textContent = this.#shown.length < n ? "choose all found" : "choose all";
  }

  #chooseShown() {
    this.#setChosen(this.#shown.map((row) => row.name));
  }

  #choose(hash, how) {
    const chosen = this.chosen();
    const rows = this.table.ordered();
    if (how === "only") chosen.clear();
    if (how === "toggle" && chosen.has(hash)) chosen.delete(hash);
    else chosen.add(hash);
    if (how === "range" && this.#anchor !== null) for (const row of between(rows, this.#anchor, hash)) chosen.add(row.name);
    this.#anchor = hash;
    // The order of the file, so that the same choice is the same address.
    const inOrder = this.rows.map((row) => row.name).filter((name) => chosen.has(name));
    const known = new Set(inOrder);
    this.#setChosen([...inOrder, ...[...chosen].filter((name) => !known.has(name))]);
  }

  #setChosen(names) {
    const isAll = names.length > 1 && names.length === this.rows.length;
    const isTooLong = !isAll && names.length > MAX_CHOSEN;
    showNotices(
      "chosen",
      isTooLong
        ? [
            `An address holds ${MAX_CHOSEN.toLocaleString("en")} prompts: the first of the ${names.length.toLocaleString("en")} are chosen.`,
          ]
        : [],
    );
    this.app.change({ prompts: isAll ? [EVERY] : names.slice(0, MAX_CHOSEN) });
  }
}

function between(rows, a, b) {
  const [first, last] = [a, b].map((name) => rows.findIndex((row) => row.name === name)).sort((x, y) => x - y);
  return first < 0 ? [] : rows.slice(first, last + 1);
}

/** One row a hash, whichever of the models hold it. */
function rowsOf(models, lists) {
  const rows = new Map();
  for (const model of models) {
    for (const prompt of lists.get(model.id)?.prompts ?? []) {
      const before = rows.get(prompt.hash);
      if (before) before.models += `, ${model.title}`;
      else rows.set(prompt.hash, row(prompt, model));
    }
  }
  return [...rows.values()];
}

function row(prompt, model) {
  return { ...prompt, name: promptName(prompt), lower: prompt.text.toLocaleLowerCase(), models: model.title };
}
