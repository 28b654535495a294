/** What was fetched last, bounded by bytes, so that a thousand views need no more memory than ten. */
export class Cache {
  #held = new Map();
  #size = 0;

  /** @param {number} maxBytes what the values may take together */
  constructor(maxBytes) {
    this.maxBytes = maxBytes;
  }

  get sizeBytes() {
    return this.#size;
  }

  has(key) {
    return this.#held.has(key);
  }

  /** The value, which is now the one used last; undefined where none is held. */
  get(key) {
    const entry = this.#held.get(key);
    if (!entry) return undefined;
    this.#held.delete(key);
    this.#held.set(key, entry);
    return entry.value;
  }

  /** Holds a value and lets go of those used longest ago. One larger than the cache is not held. */
  set(key, value, sizeBytes) {
    this.delete(key);
    if (sizeBytes > this.maxBytes) return;
    this.#held.set(key, { value, sizeBytes });
    this.#size += sizeBytes;
    for (const oldest of this.#held.keys()) {
      if (this.#size <= this.maxBytes) break;
      this.delete(oldest);
    }
  }

  delete(key) {
    this.#size -= this.#held.get(key)?.sizeBytes ?? 0;
    this.#held.delete(key);
  }

  clear() {
    this.#held.clear();
    this.#size = 0;
  }
}
