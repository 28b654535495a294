// shows the distribution of the head that was tapped
const layer = Math.round(cb_obj.y), head = Math.round(cb_obj.x)
if (titles[layer]?.[head] != null) {
  const top = counts[layer][head]
  bars.data = {...bars.data, top}
  box.data = {x: [head], y: [layer]}
  title.text = titles[layer][head]
  range.end = 1.05 * Math.max(1, ...top)
}
