/**
 * How much of a large collection is walked over in one turn of the event loop: what promises bring in the same turn belongs
 * to it. Every `Map` and `Set` of so many items counts while it is there, whoever made it.
 *
 *     using walks = new WalkCounter(1_000);
 *     connection.checkHealth();
 *     assert(walks.most <= 500);
 */
import { TurnCounter } from "./turn_counter.ts";

const WAYS = ["values", "keys", "entries", "forEach", Symbol.iterator] as const;
type Walked = Map<unknown, unknown> | Set<unknown>;

export class WalkCounter implements Disposable {
  readonly #turns = new TurnCounter();
  readonly #undo: (() => void)[] = [];

  /** @param size Collections with fewer items don't count. */
  constructor(size: number) {
    for (const prototype of [Map.prototype, Set.prototype]) {
      for (const way of WAYS) this.#watch(prototype, way, size);
    }
  }

  /** The most items in one turn until now. */
  get most(): number {
    return this.#turns.most;
  }

  /** Over all turns. */
  get all(): number {
    return this.#turns.all;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo) undo();
    this.#turns[Symbol.dispose]();
  }

  #watch(prototype: object, way: typeof WAYS[number], size: number): void {
    const own = Object.getOwnPropertyDescriptor(prototype, way)!;
    this.#undo.push(() => Object.defineProperty(prototype, way, own));
    const walk = own.value as (this: Walked, ...args: unknown[]) => unknown;
    const turns = this.#turns;
    Object.defineProperty(prototype, way, {
      ...own,
      value(this: Walked, ...args: unknown[]): unknown {
        const isLarge = this.size >= size;
        const result = walk.apply(this, args);
        if (!isLarge) return result;
        if (way === "forEach") {
          for (let i = 0; i < this.size; i++) turns.count();
          return result;
        }
        return counted(result as IterableIterator<unknown>, () => turns.count());
      },
    });
  }
}

/** What it gives, and each item is counted. Lazy: who stops early has walked over no more. */
function counted(items: IterableIterator<unknown>, count: () => void): IterableIterator<unknown> {
  return {
    next() {
      const item = items.next();
      if (!item.done) count();
      return item;
    },
    [Symbol.iterator]() {
      return this;
    },
  } as IterableIterator<unknown>;
}
