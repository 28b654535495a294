// shows the head that was tapped large
const layer = Math.round(cb_obj.y), head = Math.round(cb_obj.x)
const [n_layers, n_heads] = mosaic.shape
if (layer >= 0 && layer < n_layers && head >= 0 && head < n_heads) {
  const [n_rows, n_columns] = mosaic.tile_shape
  const step = mosaic.tile_step
  const all = stack.data.image[0]
  // Bokeh's own class cannot be sliced
  const cells = new Float32Array(all.buffer, all.byteOffset, all.length)
  const start = (layer * n_heads + head) * n_rows * n_columns
  const values = cells.slice(start, start + n_rows * n_columns)
  const image = new all.constructor(values, [n_rows, n_columns])
  large.data = {x: [-0.5], y: [-0.5], dw: [n_columns * step], dh: [n_rows * step], image: [image]}
  box.data = {x: [head], y: [layer]}
  title.text = `L${mosaic.layers[layer]}H${mosaic.heads[head]}`
  bar.title = step > 1 ? `${quantity}, largest of ${step}x${step}` : quantity
  if (!fixed) {
    let high = 0
    for (const value of values) if (value > high) high = value
    mapper.high = high || 1
  }
}
