/** A bounded number of places: who finds none waits in line. */
export class Slots {
  #free: number;
  readonly #line = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /**
   * Runs the work as soon as there is a place, and gives the place back when it ends.
   * @param signal Ends the waiting in line, and only that; the promise then rejects with its reason.
   */
  async run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#line;
      if (next) next();
      else this.#free++;
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const come = () => {
      this.#line.delete(come);
      resolve();
    };
    const leave = () => {
      // Whoever has got the place already keeps it, and gives it back.
      if (this.#line.delete(come)) reject(signal.reason);
    };
    this.#line.add(come);
    signal.addEventListener("abort", leave);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}
