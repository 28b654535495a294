/** What both pages say of stored scores. */

/** Name of a score as people read it; what it is in full stands in its `long_name`. */
export function scoreTitle(name) {
  return name.replaceAll("_", " ");
}
