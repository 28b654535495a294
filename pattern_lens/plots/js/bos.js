// leaves the first key out and renormalises the rows, or puts it back
const data = source.data
if (data.whole == null) data.whole = [data.image[0]]
const whole = data.whole[0]
const [n_rows, n_columns] = whole.shape
let shown = whole
if (cb_obj.active) {
  shown = new whole.constructor(whole, whole.shape)
  for (let i = 0; i < n_rows; i++) {
    const row = i * n_columns
    let rest = 0
    for (let j = 1; j < n_columns; j++) {
      if (!Number.isNaN(whole[row + j])) rest += whole[row + j]
    }
    shown[row] = NaN
    for (let j = 1; j < n_columns; j++) shown[row + j] = rest > 0 ? whole[row + j] / rest : NaN
  }
}
if (!fixed) {
  let high = 0
  for (const value of shown) if (value > high) high = value
  mapper.high = high || 1
}
source.data = {...data, image: [shown]}
