/**
 * A `Date.now()` that is ahead of the real one, for what has a time of minutes or more; timers go on by themselves.
 *
 *     using clock = new WallClock();
 *     clock.aheadMs = 60_000;
 */
export class WallClock implements Disposable {
  readonly #now = Date.now;

  /** @param aheadMs In milliseconds; it may be changed. */
  constructor(public aheadMs = 0) {
    Date.now = () => this.#now.call(Date) + this.aheadMs;
  }

  [Symbol.dispose](): void {
    Date.now = this.#now;
  }
}
