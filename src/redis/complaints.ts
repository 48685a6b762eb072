/** Warnings about Redis: attempts repeat and thousands may fail alike, but the log says a thing once. */
import type { Log } from "../log.ts";

export class Complaints {
  readonly #log: Log | undefined;
  readonly #againMs: number;
  /** When each was made, on the clock of `performance.now()`. */
  readonly #madeAtMs = new Map<string, number>();

  /** @param againMs What goes on so long, in milliseconds, is said again. @default 3600000 */
  constructor(log: Log | undefined, againMs = 3_600_000) {
    this.#log = log;
    this.#againMs = againMs;
  }

  /**
   * Warns, unless the same event with the same reason was warned of.
   * @param reason One of a few: in words of our own.
   * @param detail What was said, which may be different each time. Undefined when there is no more to say.
   */
  make(event: string, reason: string, detail?: string): void {
    const key = `${event}: ${reason}`;
    const nowMs = performance.now();
    if (nowMs - (this.#madeAtMs.get(key) ?? -Infinity) < this.#againMs) return;
    this.#madeAtMs.set(key, nowMs);
    this.#log?.warn(event, { reason, detail });
  }

  /** All is well: what is warned of next is new. */
  end(): void {
    this.#madeAtMs.clear();
  }
}
