/**
 * A line that anybody may leave, however long it is. A `Set` would do that too, but when it has seen many come and go it
 * changes to a new table, and the old one keeps pointing at that. Once one table is old to the garbage collector, all that
 * come after it live until the next full collection, with what stood in them then: of a thousand sends some 600 KB. Who
 * leaves a chain points at nobody.
 */

/**
 * What can stand in a chain, in one at a time. Its fields are the chain's; they are there from the beginning, so that the
 * object is not made larger later.
 */
export interface Linked<T> {
  before: T | undefined;
  after: T | undefined;
  chain: unknown;
}

/** What a new one begins with. */
export const UNLINKED = { before: undefined, after: undefined, chain: undefined } as const;

/** The base of a class whose objects stand in a chain. */
export class Link<T> implements Linked<T> {
  before: T | undefined = undefined;
  after: T | undefined = undefined;
  chain: unknown = undefined;
}

export class Chain<T extends Linked<T>> implements Iterable<T> {
  #first: T | undefined;
  #last: T | undefined;
  #size = 0;
  /** Where each walk through it goes on: nearly always there is none, or one. */
  #walks: { next: T | undefined }[] = [];

  get size(): number {
    return this.#size;
  }

  /** The one that has stood in it the longest. */
  get first(): T | undefined {
    return this.#first;
  }

  /** Puts one at its end that stands in no chain. */
  add(one: T): void {
    const last = this.#last;
    one.before = last;
    one.after = undefined;
    one.chain = this;
    if (last) last.after = one;
    else this.#first = one;
    this.#last = one;
    this.#size++;
    for (const walk of this.#walks) walk.next ??= one;
  }

  /** @returns Whether it stood in this one. */
  delete(one: T): boolean {
    if (one.chain !== this) return false;
    const { before, after } = one;
    for (const walk of this.#walks) if (walk.next === one) walk.next = after;
    if (before) before.after = after;
    else this.#first = after;
    if (after) after.before = before;
    else this.#last = before;
    one.before = one.after = undefined;
    one.chain = undefined;
    this.#size--;
    return true;
  }

  /** Walks through it, however long that takes: who has left meanwhile is not met, and who has come is. */
  *[Symbol.iterator](): Generator<T> {
    const walk = { next: this.#first };
    this.#walks.push(walk);
    try {
      for (let one; (one = walk.next) !== undefined;) {
        walk.next = one.after;
        yield one;
      }
    } finally {
      this.#walks.splice(this.#walks.indexOf(walk), 1);
    }
  }

  /** Takes out the first one; undefined when there is none. */
  shift(): T | undefined {
    const first = this.#first;
    if (first) this.delete(first);
    return first;
  }
}
