/** A semaphore: work beyond a bounded number waits in line, first come first. */
import type { Attempt } from "./attempt.ts";

export class Semaphore {
  #free: number;
  readonly #line = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /**
   * Runs the work as soon as there is a place, and passes the place on when it ends.
   * @param attempt When it is given up, so is the waiting in line.
   */
  async run<T>(work: () => Promise<T>, attempt?: Attempt): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#turn(attempt);
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  async #turn(attempt: Attempt | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#line.add(resolve);
    try {
      await (attempt ? attempt.step(promise, () => this.#leave()) : promise);
    } finally {
      this.#line.delete(resolve);
    }
  }

  #leave(): void {
    const [next] = this.#line;
    if (!next) return void this.#free++;
    this.#line.delete(next);
    next();
  }
}

/** A semaphore for each name: who has much work waits behind their own, and nobody else does. */
export class Semaphores {
  readonly #count: number;
  /** There as long as somebody is in it. */
  readonly #all = new Map<string, { readonly semaphore: Semaphore; inside: number }>();

  /** @param count Places of each name. */
  constructor(count: number) {
    this.#count = count;
  }

  /** As `Semaphore.run`, in that of the name. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const one = this.#all.get(name) ?? { semaphore: new Semaphore(this.#count), inside: 0 };
    this.#all.set(name, one);
    one.inside++;
    try {
      return await one.semaphore.run(work);
    } finally {
      if (--one.inside === 0) this.#all.delete(name);
    }
  }
}
