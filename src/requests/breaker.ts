/**
 * Leaves a backend alone that does not answer: after some failures in a row nobody is kept waiting for it, and one request
 * at a time finds out whether it is back.
 */
import { type Backoff, backoffMs } from "../async/backoff.ts";

/** So many failures in a row, and the backend is taken to be away. */
export const MAX_FAILURES = 5;
const BACKOFF: Backoff = { baseMs: 1_000, maxMs: 30_000, jitter: 0.5 };

/** One request that was let through: says once how it ended. Without a verdict it says nothing of the backend. */
export type Verdict = (isWell: boolean | undefined) => void;

export class Breaker {
  readonly #onChange: (isAway: boolean) => void;
  #failures = 0;
  /** On the clock of `performance.now()`. */
  #awayUntilMs = -Infinity;
  #isProbing = false;

  /** @param onChange Hears when the backend is taken to be away, and when it is back. */
  constructor(onChange: (isAway: boolean) => void = () => {}) {
    this.#onChange = onChange;
  }

  /** Lets a request through; or says for how many milliseconds the backend is left alone. */
  enter(): Verdict | number {
    if (!this.#isAway) return (isWell) => this.#judge(isWell, false);
    const leftMs = this.#awayUntilMs - performance.now();
    if (leftMs > 0) return leftMs;
    if (this.#isProbing) return BACKOFF.baseMs;
    this.#isProbing = true;
    return (isWell) => this.#judge(isWell, true);
  }

  get #isAway(): boolean {
    return this.#failures >= MAX_FAILURES;
  }

  #judge(isWell: boolean | undefined, isProbe: boolean): void {
    if (isProbe) this.#isProbing = false;
    if (isWell === undefined) return;
    const wasAway = this.#isAway;
    if (isWell) {
      this.#failures = 0;
      if (wasAway) this.#onChange(false);
    } else if (!wasAway || isProbe) {
      // What was under way when it went away says nothing new.
      this.#failures++;
      if (!this.#isAway) return;
      this.#awayUntilMs = performance.now() + backoffMs(this.#failures - MAX_FAILURES, BACKOFF);
      if (!wasAway) this.#onChange(true);
    }
  }
}
