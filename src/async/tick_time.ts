/**
 * The time by which a timer says what is late. When this process has not run for a while, since it was stopped, its machine
 * slept, or others had all of its time, then what came for it meanwhile lies unread, and timers come first: by the clock all
 * that it waits for would be late. So a turn that comes late itself goes by the time of the one before: what was late then
 * has had a whole turn of the event loop since.
 */
export class TickTime {
  readonly #everyMs: number;
  #lastMs = performance.now();

  /** @param everyMs How often its timer has a turn. */
  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** @param nowMs When this turn is. Called at each of them, once. */
  at(nowMs: number): number {
    const lastMs = this.#lastMs;
    this.#lastMs = nowMs;
    return nowMs - lastMs > 2 * this.#everyMs ? lastMs : nowMs;
  }
}
