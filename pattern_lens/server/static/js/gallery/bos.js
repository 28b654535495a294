/** Pictures without their first key: that column is 0 and each row sums to 1 again, to the precision of a byte. */

export function withoutBos(picture) {
  const { values, packing, nQuery, nKey, step } = picture;
  const isTriangle = packing === "triangle";
  const rows = Math.ceil(nQuery / step);
  const rowSize = Math.ceil(nKey / step);
  const out = new Uint8Array(values.length);
  for (let query = 0, at = 0; query < rows; query++) {
    const width = isTriangle ? query + 1 : rowSize;
    const factor = factorOf(values, at, width, step);
    for (let key = 1; key < width; key++) out[at + key] = Math.min(255, Math.round(values[at + key] * factor));
    at += width;
  }
  return { ...picture, values: out };
}

/** What scales the rest of a row to 1. Reduced pictures hold maxima, whose sum says nothing: there it is what BOS leaves. */
function factorOf(values, at, width, step) {
  if (step > 1) return 255 / Math.max(1, 255 - values[at]);
  let rest = 0;
  for (let key = 1; key < width; key++) rest += values[at + key];
  return rest ? 255 / rest : 0;
}
