/** Things in the order of their coming, each found by its channel. Most channels have one, which takes no list. */
export class ByChannel<T extends { readonly channel: string }> {
  readonly #items = new Map<string, T | T[]>();

  get size(): number {
    return this.#items.size;
  }

  add(item: T): void {
    const there = this.#items.get(item.channel);
    if (there === undefined) this.#items.set(item.channel, item);
    else if (Array.isArray(there)) there.push(item);
    else this.#items.set(item.channel, [there, item]);
  }

  delete(item: T): void {
    const there = this.#items.get(item.channel);
    if (there === item) {
      this.#items.delete(item.channel);
    } else if (Array.isArray(there)) {
      const at = there.indexOf(item);
      if (at >= 0) there.splice(at, 1);
      if (there.length === 0) this.#items.delete(item.channel);
    }
  }

  of(channel: string): readonly T[] {
    const there = this.#items.get(channel);
    return there === undefined ? [] : Array.isArray(there) ? there : [there];
  }

  /** Channels that have something. A slow iteration meets also those that come meanwhile. */
  channels(): IterableIterator<string> {
    return this.#items.keys();
  }

  *[Symbol.iterator](): Generator<T> {
    for (const there of this.#items.values()) {
      if (Array.isArray(there)) yield* [...there];
      else yield there;
    }
  }
}
