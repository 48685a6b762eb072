/**
 * A `performance.now()` that stands still until the test lets time pass: so bounds can be looked at from both sides, to
 * the millisecond, on a machine of any speed. Timers go on by themselves. Not together with `until`, which reads the
 * same clock to know when to give up; `withDeadline` and bells do not.
 *
 *     using clock = new StandingClock();
 *     clock.pass(999);
 */
export class StandingClock implements Disposable {
  readonly #now = performance.now;
  // A whole number: sums of it and of whole milliseconds are exact.
  #ms = Math.ceil(performance.now());

  constructor() {
    performance.now = () => this.#ms;
  }

  pass(ms: number): void {
    this.#ms += ms;
  }

  [Symbol.dispose](): void {
    performance.now = this.#now;
  }
}
