/** When a client that lost its connection tries again: when the server said, else ever later, at random. */
import { backoffMs } from "../async/backoff.ts";
import type { Backoff } from "./options.ts";

/** No server's word keeps a client away longer than this, in milliseconds: timers can't count much further. */
const LONGEST_MS = 3_600_000;

export class Retry {
  readonly #backoff: Backoff;
  #failures = 0;
  #waitMs = 0;
  #atMs = 0;

  constructor(backoff: Backoff) {
    this.#backoff = backoff;
  }

  /** What was is no reason to wait longer. */
  reset(): void {
    this.#failures = 0;
  }

  /**
   * Fixes when the next attempt comes.
   * @param askedMs What the server asks for, whatever that is.
   * @returns In how many milliseconds.
   */
  plan(askedMs: unknown): number {
    this.#waitMs = typeof askedMs === "number" && askedMs >= 0
      ? Math.min(askedMs, LONGEST_MS)
      : backoffMs(this.#failures, this.#backoff);
    this.#failures++;
    this.#atMs = Date.now() + this.#waitMs;
    return this.#waitMs;
  }

  /** Until then, in milliseconds; never more than planned, whatever is done to the clock. */
  get leftMs(): number {
    return Math.min(this.#waitMs, Math.max(0, this.#atMs - Date.now()));
  }
}
