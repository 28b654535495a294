/** The table of prompts, made by Tabulator, which is loaded when the first pictures are on the screen. */
import { h } from "pattern-lens/dom.js";

const PAGE_SIZE = 10;

/**
 * @param {HTMLElement} place
 * @param {{onChoose: (name: string, how: "only" | "toggle" | "range") => void, isChosen: (name: string) => boolean}} parts
 */
export async function openTable(place, { onChoose, isChosen }) {
  const { TabulatorFull } = await import("tabulator");
  const table = new TabulatorFull(place, {
    data: [],
    index: "name",
    layout: "fitColumns",
    placeholder: "No prompt matches.",
    headerSortClickElement: "header",
    pagination: true,
    paginationSize: PAGE_SIZE,
    paginationSizeSelector: [5, 10, 20, 50, 100, 500],
    paginationCounter: "rows",
    columns: columns(onChoose, isChosen),
    rowFormatter: (row) => mark(row, isChosen(row.getData().name)),
  });
  await new Promise((resolve) => {
    table.on("tableBuilt", resolve);
  });
  table.on("rowClick", (event, row) => {
    if (!event.target.closest("input")) onChoose(row.getData().name, howOf(event));
  });
  sortByKeyboard(place);
  let hasSeveral = false;
  let hasDatasets = false;
  return {
    /** Rows in the order of the table. */
    ordered: () => table.getData("active"),
    setRows(rows, isSeveral) {
      const isKnown = rows.some((row) => row.dataset !== null);
      if (isKnown !== hasDatasets) table[isKnown ? "showColumn" : "hideColumn"]("dataset");
      hasDatasets = isKnown;
      if (isSeveral !== hasSeveral) table[isSeveral ? "showColumn" : "hideColumn"]("models");
      hasSeveral = isSeveral;
      const page = table.getPage();
      table.replaceData(rows).then(() => table.setPage(Math.min(page || 1, table.getPageMax() || 1)));
    },
    refreshChosen() {
      for (const row of table.getRows("visible")) mark(row, isChosen(row.getData().name));
    },
    close: () => table.destroy(),
    goTo(row) {
      table.setPageToRow(row.name).catch(() => {});
    },
  };
}

function columns(onChoose, isChosen) {
  return [
    {
      title: "",
      field: "name",
      width: 34,
      hozAlign: "center",
      headerSort: false,
      resizable: false,
      formatter: (cell) => checkbox(cell.getData(), onChoose, isChosen),
    },
    { title: "prompt", field: "text", formatter: promptText, widthGrow: 4, minWidth: 120 },
    { title: "models", field: "models", visible: false, minWidth: 70, formatter: plainText },
    { title: "dataset", field: "dataset", visible: false, minWidth: 80, formatter: plainText },
    { title: "tokens", field: "n_tokens", width: 96, hozAlign: "right", sorter: "number", headerHozAlign: "right" },
  ];
}

function checkbox(prompt, onChoose, isChosen) {
  return h("input", {
    type: "checkbox",
    checked: isChosen(prompt.name),
    "aria-label": `Choose ${prompt.text.slice(0, 60)}`,
    onclick: (event) => event.shiftKey && (event.preventDefault(), onChoose(prompt.name, "range")),
    onchange: () => onChoose(prompt.name, "toggle"),
  });
}

function promptText(cell) {
  const { text, truncated, hash } = cell.getData();
  return h(
    "span",
    { class: "prompt-text", dir: "auto", title: `${text}\n\n${hash}${truncated ? "\n(cut to the model's context)" : ""}` },
    text,
  );
}

function plainText(cell) {
  return h("bdi", {}, cell.getValue() ?? "");
}

function mark(row, isChosen) {
  const element = row.getElement();
  element.classList.toggle("is-chosen", isChosen);
  element.dataset.prompt = row.getData().name;
  const box = element.querySelector("input[type=checkbox]");
  if (box) box.checked = isChosen;
}

function howOf(event) {
  if (event.ctrlKey || event.metaKey) return "toggle";
  return event.shiftKey ? "range" : "only";
}

/** Headings of columns are reached and pressed by keyboard. */
function sortByKeyboard(place) {
  for (const heading of place.querySelectorAll(".tabulator-col.tabulator-sortable")) {
    heading.tabIndex = 0;
    heading.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      heading.click();
    });
  }
}
