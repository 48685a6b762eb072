/**
 * A clock that stands still until a test turns it, with all timers that are set by it: for what is about seconds and
 * minutes, without a wait, and the same on every machine. Not for anything that reads or writes.
 *
 *     using clock = new TurnedClock();
 *     clock.pass(60_000);
 */
export class TurnedClock implements Disposable {
  readonly #real = {
    now: performance.now,
    dateNow: Date.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
  };
  readonly #timers = new Map<number, { readonly dueMs: number; readonly callback: () => void }>();
  /** Whole milliseconds: sums of parts of one would fall short of what they make. */
  #nowMs = Math.ceil(performance.now());
  #dateMs = Date.now();
  #made = 0;

  constructor() {
    performance.now = () => this.#nowMs;
    Date.now = () => this.#dateMs;
    globalThis.setTimeout = ((callback: () => void, ms = 0) => {
      this.#timers.set(++this.#made, { dueMs: this.#nowMs + ms, callback });
      return this.#made;
    }) as unknown as typeof globalThis.setTimeout;
    globalThis.clearTimeout = (id) => void this.#timers.delete(id as number);
  }

  /** How many timers are set. */
  get timers(): number {
    return this.#timers.size;
  }

  /** So many milliseconds pass; timers that come due run, in their order, each at its moment. */
  pass(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const [next] = [...this.#timers].filter(([, { dueMs }]) => dueMs <= endMs)
        .toSorted(([, a], [, b]) => a.dueMs - b.dueMs);
      if (!next) break;
      const [id, { dueMs, callback }] = next;
      this.#timers.delete(id);
      this.#turnTo(Math.max(dueMs, this.#nowMs));
      callback();
    }
    this.#turnTo(endMs);
  }

  /** The wall clock is set otherwise, by so many milliseconds; the other one goes on. */
  setWallClock(byMs: number): void {
    this.#dateMs += byMs;
  }

  [Symbol.dispose](): void {
    performance.now = this.#real.now;
    Date.now = this.#real.dateNow;
    globalThis.setTimeout = this.#real.setTimeout;
    globalThis.clearTimeout = this.#real.clearTimeout;
  }

  #turnTo(ms: number): void {
    this.#dateMs += ms - this.#nowMs;
    this.#nowMs = ms;
  }
}
