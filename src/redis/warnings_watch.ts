/**
 * Knows what Redis is warned of. Asks at the start, after every reconnect, which may have led to another Redis, and
 * every minute, because settings change. The log has each warning once, and again when it had been cured.
 */
import { ticker } from "../async/ticker.ts";
import type { Log } from "../log/log.ts";

/** What it needs of Redis. */
export interface Watched {
  /** Why it can't be asked; undefined when it can. */
  readonly reason: string | undefined;
  readonly reconnects: number;
  warnings(): Promise<string[]>;
}

const TICK_MS = 1_000;
const ASK_MS = 60_000;

export class WarningsWatch implements Disposable {
  readonly #redis: Watched;
  readonly #log: Log;
  readonly #stopTicking: () => void;
  #warnings: readonly string[] = [];
  #isAsking = false;
  #nextMs = -Infinity;
  #reconnects = 0;

  /** @param redis Stays the caller's to close. */
  constructor(redis: Watched, log: Log) {
    this.#redis = redis;
    this.#log = log;
    this.#stopTicking = ticker.every(TICK_MS, () => void this.look());
  }

  /** Sentences without a full stop. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** Asks when it is time to, and Redis can be asked. Never rejects. */
  async look(): Promise<void> {
    const { reason, reconnects } = this.#redis;
    const isDue = reconnects !== this.#reconnects || performance.now() >= this.#nextMs;
    if (!isDue || this.#isAsking || reason !== undefined) return;
    this.#isAsking = true;
    try {
      const warnings = await this.#redis.warnings();
      for (const warning of warnings) {
        if (!this.#warnings.includes(warning)) {
          this.#log.warn("redis may lose data", { reason: warning });
        }
      }
      this.#warnings = warnings;
      this.#reconnects = reconnects;
      this.#nextMs = performance.now() + ASK_MS;
    } catch {
      // The connection has said it; what was known stays, and the next tick asks again.
    } finally {
      this.#isAsking = false;
    }
  }

  [Symbol.dispose](): void {
    this.#stopTicking();
  }
}
