/** Warns of a thing once while it goes on: attempts repeat, and thousands may fail alike. */
import type { Log } from "./log.ts";

/** Times on the clock of `performance.now()`. */
interface Warning {
  saidAtMs: number;
  /** When there was cause for it the last time, said or not. */
  dueAtMs: number;
}

export class WarnOnce {
  readonly #log: Log | undefined;
  readonly #againMs: number;
  readonly #quietMs: number;
  readonly #warnings = new Map<string, Warning>();

  /**
   * @param options.againMs What goes on so long, in milliseconds, is said again. @default 3600000
   * @param options.quietMs What did not come for so long was over: it is news when it comes again. @default 60000
   */
  constructor(log: Log | undefined, options: { againMs?: number; quietMs?: number } = {}) {
    this.#log = log;
    this.#againMs = options.againMs ?? 3_600_000;
    this.#quietMs = options.quietMs ?? 60_000;
  }

  /**
   * Warns, unless the same event with the same reason was warned of.
   * @param reason One of a few: in words of our own.
   * @param detail What was said, which may be different each time. Undefined when there is no more to say.
   */
  warn(event: string, reason: string, detail?: string): void {
    const key = `${event}: ${reason}`;
    const nowMs = performance.now();
    const before = this.#warnings.get(key);
    const isNews = !before || nowMs - before.dueAtMs >= this.#quietMs ||
      nowMs - before.saidAtMs >= this.#againMs;
    this.#warnings.set(key, { saidAtMs: isNews ? nowMs : before.saidAtMs, dueAtMs: nowMs });
    if (isNews) this.#log?.warn(event, { reason, detail });
  }

  /** All is well: what is warned of next is new. */
  reset(): void {
    this.#warnings.clear();
  }
}
