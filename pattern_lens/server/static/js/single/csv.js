/** A pattern as a table: one row a stored number. */
import { exactText } from "pattern-lens/pattern.js";

const HEADER = "query,query_token,key,key_token,value\r\n";

function quoted(text) {
  return text === undefined ? "" : `"${text.replaceAll('"', '""')}"`;
}

/**
 * The table of a view, in parts that a Blob puts together; tokens are as stored, numbers exact.
 * @param {{pattern: import("../pattern.js").Pattern, queryTokens?: string[], keyTokens?: string[]}} view
 * @returns {string[]}
 */
export function csvOf({ pattern, queryTokens, keyTokens }) {
  const options = { isDouble: pattern.values instanceof Float64Array };
  const keys = Array.from({ length: pattern.nKey }, (_, key) => `${key},${quoted(keyTokens?.[key])},`);
  const rows = Array.from({ length: pattern.nQuery }, (_, query) => {
    const start = `${query},${quoted(queryTokens?.[query])},`;
    const from = pattern.start(query);
    let row = "";
    for (let key = 0; key < pattern.width(query); key++)
      row += `${start}${keys[key]}${exactText(pattern.values[from + key], options)}\r\n`;
    return row;
  });
  return [HEADER, ...rows];
}
