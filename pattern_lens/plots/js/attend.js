// colours the tokens by their attention from, or to, one of them; hover previews, click locks, click again unlocks
const n = boxes.data.left.length
const whole = pattern.data.image[0]
const by_keys = way.active === 0
const state = pattern.tags[0]

function under({x, y}) {
  const {left, right, line} = boxes.data
  for (let i = 0; i < n; i++) {
    if (line[i] === Math.round(y) && left[i] <= x && x <= right[i]) return i
  }
  return -1
}

const is_move = cb_obj.event_name === "mousemove"
const is_tap = cb_obj.event_name === "tap"
if (is_move || is_tap) {
  const found = under(cb_obj)
  if (is_tap) {
    state.locked = found >= 0 && found !== state.locked ? found : -1
    if (found >= 0) state.token = found
  } else {
    if (state.locked >= 0 || found < 0 || found === state.token) return
    state.token = found
  }
}
const token = state.token

function attention(query, key) {
  const value = whole[query * n + key]
  if (!leave.active) return value
  if (key === 0) return NaN
  let rest = 0
  for (let k = 1; k < n; k++) if (!Number.isNaN(whole[query * n + k])) rest += whole[query * n + k]
  return rest > 0 ? value / rest : NaN
}

const value = new Float32Array(n)
let high = 0, most = -1
for (let i = 0; i < n; i++) {
  value[i] = by_keys ? attention(token, i) : attention(i, token)
  if (value[i] > high) { high = value[i]; most = i }
}
mapper.high = high || 1
const edge = [], edge_width = [], ink = []
for (let i = 0; i < n; i++) {
  edge.push(i !== token ? "#e4e4e4" : state.locked >= 0 ? "#d55e00" : "#222222")
  edge_width.push(i === token ? 2.5 : 1)
  ink.push(value[i] > 0.55 * mapper.high ? "#ffffff" : "#222222")
}
boxes.data = {...boxes.data, color: value, line_color: edge, line_width: edge_width}
texts.data = {...texts.data, text_color: ink}
const said = by_keys ? "looks at" : "is looked at by"
const best = most < 0 ? "" : `, most ${by_keys ? "at" : "by"} ${boxes.data.label[most]} (${high.toPrecision(3)})`
title.text = `${head}${boxes.data.label[token]} ${said}${best}${state.locked >= 0 ? " · locked" : ""}`.replaceAll("$$", "$\u200b$")
