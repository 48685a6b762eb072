/** When the connection for commands is dialled again: at once after one that served us, else ever more slowly. */
import { backoffMs } from "../async/backoff.ts";

const BACKOFF = { baseMs: 50, maxMs: 1_000, jitter: 0.5 };

export class Redial {
  readonly #dial: () => void;
  /** Connections that ended before Redis said who it is, one after the other. */
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(dial: () => void) {
    this.#dial = dial;
  }

  /** In the place of what was planned before. */
  later(): void {
    const failures = this.#failures++;
    const delayMs = failures === 0 ? 0 : backoffMs(failures, BACKOFF);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#dial, delayMs);
  }

  /** What failed says nothing of what is dialled next. */
  reset(): void {
    this.#failures = 0;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
