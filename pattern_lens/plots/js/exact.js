// the shortest decimal that is this float32, as numpy prints it
if (value == null || Number.isNaN(value)) return "no number"
for (let digits = 1; digits < 10; digits++) {
  const text = value.toPrecision(digits)
  if (Math.fround(Number(text)) === Math.fround(value)) return String(Number(text))
}
return String(value)
