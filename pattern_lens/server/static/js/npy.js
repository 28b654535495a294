/** numpy's `.npy` files (versions 1 to 3) as typed arrays that share the buffer they came in. */

const ARRAYS = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "|u1": Uint8Array,
  "|i1": Int8Array,
  "<u2": Uint16Array,
  "<i2": Int16Array,
  "<u4": Uint32Array,
  "<i4": Int32Array,
  "|b1": Uint8Array,
};
const MAGIC = "\x93NUMPY";

function start(bytes) {
  if (bytes.length < 10 || String.fromCharCode(...bytes.subarray(0, 6)) !== MAGIC) {
    throw new TypeError("not a .npy file: it does not begin with numpy's magic bytes");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return bytes[6] === 1 ? { at: 10, size: view.getUint16(8, true) } : { at: 12, size: view.getUint32(8, true) };
}

function header(bytes) {
  const { at, size } = start(bytes);
  if (at + size > bytes.length) throw new RangeError(".npy file ends inside its header");
  const text = new TextDecoder("latin1").decode(bytes.subarray(at, at + size));
  const dtype = /'descr':\s*'([^']+)'/.exec(text)?.[1];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(text)?.[1];
  if (dtype === undefined || shape === undefined)
    throw new TypeError(`.npy header ${JSON.stringify(text.trim())} names no plain dtype and shape`);
  const sizes = shape
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(Number);
  return { dtype, shape: sizes, fortran: /'fortran_order':\s*True/.test(text), end: at + size };
}

/**
 * The array that a `.npy` file holds.
 * @param {ArrayBuffer | Uint8Array} buffer
 * @returns {{data: Float32Array | Float64Array | Uint8Array, shape: number[], dtype: string, fortran: boolean}}
 */
export function parseNpy(buffer) {
  const bytes = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  const { dtype, shape, fortran, end } = header(bytes);
  const Typed = ARRAYS[dtype];
  if (!Typed) throw new TypeError(`.npy dtype ${JSON.stringify(dtype)} is none of ${Object.keys(ARRAYS).join(", ")}`);
  const count = shape.reduce((product, size) => product * size, 1);
  const from = bytes.byteOffset + end;
  if (bytes.byteLength - end < count * Typed.BYTES_PER_ELEMENT) {
    throw new RangeError(`.npy file holds ${bytes.byteLength - end} bytes of data, expected ${count * Typed.BYTES_PER_ELEMENT}`);
  }
  const aligned = from % Typed.BYTES_PER_ELEMENT === 0;
  const data = aligned
    ? new Typed(bytes.buffer, from, count)
    : new Typed(bytes.buffer.slice(from, from + count * Typed.BYTES_PER_ELEMENT));
  return { data, shape, dtype, fortran };
}
