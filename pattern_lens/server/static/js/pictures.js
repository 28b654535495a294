/** Pictures of heads: what is held is not asked for again, and wishes of the same moment are one request. */
import { label } from "pattern-lens/heads.js";
import { parseNpy } from "pattern-lens/npy.js";
import { triangleSize } from "pattern-lens/pattern.js";

const MAX_SIDE = 256;

export class Pictures {
  #waiting = new Map();
  #wished = new Map();

  constructor(source, cache) {
    this.source = source;
    this.cache = cache;
  }

  get sizeBytes() {
    return this.cache.sizeBytes;
  }

  clear() {
    this.cache.clear();
  }

  async get(id, key, heads) {
    const labels = heads.map(([layer, head]) => label(layer, head));
    const coming = heads.map(([layer, head]) => this.#one(id, key, layer, head));
    const pictures = await Promise.all(coming);
    return new Map(labels.map((name, i) => [name, pictures[i]]));
  }

  #one(id, key, layer, head) {
    const name = `${id}/${key}/${label(layer, head)}`;
    const held = this.cache.get(name) ?? this.#waiting.get(name);
    if (held) return held;
    const wish = this.#wish(id, key);
    wish.heads.push([layer, head]);
    const coming = wish.answer
      .then((pictures) => {
        const picture = pictures.get(label(layer, head));
        this.cache.set(name, picture, picture.values.byteLength);
        return picture;
      })
      .finally(() => this.#waiting.delete(name));
    this.#waiting.set(name, coming);
    return coming;
  }

  /** The request for a prompt that leaves when everything that runs now has run. */
  #wish(id, key) {
    const name = `${id}/${key}`;
    if (!this.#wished.has(name)) {
      const heads = [];
      const answer = Promise.resolve().then(() => {
        this.#wished.delete(name);
        return this.#ask(id, key, heads);
      });
      this.#wished.set(name, { heads, answer });
    }
    return this.#wished.get(name);
  }

  async #ask(id, key, heads) {
    const model = await this.source.indexOf(id);
    const path = `api/${encodeURIComponent(id)}/prompt/${encodeURIComponent(key)}`;
    const found = await this.source.place.pictures(model, path, heads, this.source);
    const size = await this.#size(model, id, key, found);
    const copy = (values) => ({ values: values.slice(), packing: model.packing, ...size });
    return new Map([...found].map(([name, values]) => [name, copy(values)]));
  }

  /** Sizes of a pattern; those of a short triangle are known from how many numbers it has. */
  async #size(model, id, key, found) {
    const side = triangleSize(found.values().next().value?.length ?? 0);
    if (model.packing === "triangle" && side <= MAX_SIDE / 2) return { nQuery: side, nKey: side, step: 1 };
    const { n_query: nQuery, n_key: nKey } = await this.source.prompt(id, key);
    return { nQuery, nKey, step: Math.ceil(Math.max(nQuery, nKey) / MAX_SIDE) || 1 };
  }
}

/** Pictures of a place that has whole layers only. @returns {Promise<Map<string, Uint8Array>>} packed values by label */
export async function wholeLayers(model, path, heads, source) {
  const layers = [...new Set(heads.map(([layer]) => layer))];
  const found = await Promise.all(
    layers.map(async (layer) => {
      const { data, shape } = parseNpy(await source.get(`${path}/pictures/L${layer}.npy`));
      const size = shape[1];
      return headsHeld(model, layer).map((head, i) => [label(layer, head), data.subarray(i * size, (i + 1) * size)]);
    }),
  );
  return new Map(found.flat());
}

/** Heads of a layer in the order in which a file of the layer has them: an export may hold some only. */
function headsHeld(model, layer) {
  const all = Array.from({ length: model.n_heads }, (_, head) => head);
  return model.heads ? all.filter((head) => model.heads.includes(label(layer, head))) : all;
}
