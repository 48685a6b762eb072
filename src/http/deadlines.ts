/** One time limit for many short waits, at the price of one timer for all of them. */

interface Wait {
  readonly dueMs: number;
  late(): void;
}

/** How late a limit may act. */
const TICK_MS = 500;

export class Deadlines {
  readonly limitMs: number;
  /** In the order of their ends, since all have the same limit. */
  readonly #waits = new Set<Wait>();
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(limitMs: number) {
    this.limitMs = limitMs;
  }

  /**
   * Passes the promise on, or rejects when the limit has passed, or half a second later. The promise itself goes on.
   * @param error Makes the error to reject with.
   */
  within<T>(promise: Promise<T>, error: () => Error): Promise<T> {
    return new Promise((resolve, reject) => {
      const wait = { dueMs: performance.now() + this.limitMs, late: () => reject(error()) };
      this.#waits.add(wait);
      this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
      promise.then((value) => {
        this.#waits.delete(wait);
        resolve(value);
      }, (error: unknown) => {
        this.#waits.delete(wait);
        reject(error);
      });
    });
  }

  /** Ends all limits; what waits goes on without one. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#waits.clear();
  }

  #tick(): void {
    const nowMs = performance.now();
    for (const wait of this.#waits) {
      if (wait.dueMs > nowMs) return;
      this.#waits.delete(wait);
      wait.late();
    }
    // Not as soon as the last wait ends: the next is rarely far.
    if (this.#waits.size === 0) this.close();
  }
}
