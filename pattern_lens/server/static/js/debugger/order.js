/** The order of the nodes: `total` is the largest first, `total.high` and `total.low` go by the sign. */

export function parseOrder(order) {
  const [measure, way = ""] = order.split(".");
  return { measure, way };
}

/** Rows in an order; those without the measure come last, and equal ones stay as they were. */
export function sorted(rows, order) {
  const { measure, way } = parseOrder(order);
  const rank = { "": (value) => -Math.abs(value), high: (value) => -value, low: (value) => value }[way];
  const of = ({ [measure]: value }) => (value === null || value === undefined ? Infinity : rank(value));
  return [...rows].sort((a, b) => of(a) - of(b) || 0);
}
