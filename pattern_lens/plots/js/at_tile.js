// what is under the pointer: a head, and a cell of its tile
const {x, y} = special_vars
const layer = Math.round(y), head = Math.round(x)
if (format === "head") return `L${mosaic.layers[layer]}H${mosaic.heads[head]}`
const [, , n_rows, n_columns] = mosaic.shape
const [above, beside] = mosaic.gaps
const of_query = format === "query"
const cell = of_query
  ? Math.floor((y + 0.5 - layer) * (n_rows + 2 * above)) - above
  : Math.floor((x + 0.5 - head) * (n_columns + 2 * beside)) - beside
return (of_query ? mosaic.queries : mosaic.keys)[cell * mosaic.step] ?? ""
