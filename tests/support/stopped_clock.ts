/**
 * A clock that stands still until the test lets time pass, for what is measured by `performance.now`: no machine is too
 * slow for it.
 *
 *     using clock = new StoppedClock();
 *     clock.pass(1_000);
 */
export class StoppedClock implements Disposable {
  readonly #now = performance.now;
  #passedMs = 0;

  constructor() {
    const ms = Math.floor(performance.now());
    performance.now = () => ms + this.#passedMs;
  }

  /** Lets so many milliseconds pass. */
  pass(ms: number): void {
    this.#passedMs += ms;
  }

  [Symbol.dispose](): void {
    performance.now = this.#now;
  }
}
