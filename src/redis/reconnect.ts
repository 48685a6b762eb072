/** Reconnects with exponential back-off and full jitter, at a time when Redis may answer, until it does. */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import type { RedisConnection } from "./raw_connection.ts";

const BACKOFF = { baseMs: 50, maxMs: 2_000 };
/** A connection that lasted so long was a good one, also when nobody was sent anything meanwhile. */
const LASTING_MS = 2_000;

/**
 * How one connection is dialled as often as it is lost: at once when it was a good one, on which a message had come or
 * which had lasted. Else the back-off goes on, because a Redis may also let us in only to hang up.
 */
export class Reconnect {
  readonly #dial: (signal: AbortSignal) => Promise<RedisConnection>;
  readonly #whenReady: () => Promise<void>;
  /** Dials that brought no good connection, one after the other. */
  #failedAttempts = 0;
  #last: RedisConnection | undefined;
  #connectedAtMs = 0;

  /** @param whenReady Resolves when it makes sense to dial. */
  constructor(dial: (signal: AbortSignal) => Promise<RedisConnection>, whenReady: () => Promise<void>) {
    this.#dial = dial;
    this.#whenReady = whenReady;
  }

  /** What failed says nothing of what is dialled next. */
  reset(): void {
    this.#failedAttempts = 0;
  }

  /**
   * Resolves when there is a connection. Call it when the one before was lost.
   * @param signal Ends the attempts; look at it once more when you have the connection.
   * @returns undefined when the attempts were ended.
   */
  async connect(signal: AbortSignal): Promise<RedisConnection | undefined> {
    if (this.#last?.hasDelivered || performance.now() - this.#connectedAtMs >= LASTING_MS) this.reset();
    while (!signal.aborted) {
      await sleep(Infinity, this.#whenReady(), signal);
      const failedAttempts = this.#failedAttempts++;
      // Full jitter: thousands of subscriptions lost at one moment must not come back at one moment.
      if (failedAttempts > 0) await sleep(backoffMs(failedAttempts, BACKOFF), signal);
      if (signal.aborted) break;
      try {
        const connection = await this.#dial(signal);
        if (!signal.aborted) {
          this.#connectedAtMs = performance.now();
          return this.#last = connection;
        }
        connection.close();
      } catch {
        // Tried again, for as long as anybody listens; the dialler has logged why.
      }
    }
    return undefined;
  }
}
