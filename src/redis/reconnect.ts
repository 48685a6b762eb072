/** Reconnects with exponential back-off and full jitter, at a time when Redis may answer, until it does. */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import type { RedisConnection } from "./raw_connection.ts";

const BACKOFF = { baseMs: 50, maxMs: 2_000 };
/** A connection that lasted so long was a good one, also when nobody was sent anything meanwhile. */
const LASTING_MS = 2_000;

export interface ReconnectOptions {
  dial(signal: AbortSignal): Promise<RedisConnection>;
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
}

/**
 * How one connection is dialled as often as it is lost: at once when it was a good one, on which a message had come or
 * which had lasted. Else the back-off goes on, because a Redis may also let us in only to hang up.
 */
export class Reconnect {
  readonly #options: ReconnectOptions;
  /** Dials that brought no good connection, one after the other. */
  #failedAttempts = 0;
  #last: RedisConnection | undefined;
  #connectedAtMs = 0;

  constructor(options: ReconnectOptions) {
    this.#options = options;
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
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    const abort = () => resolve();
    signal.addEventListener("abort", abort);
    try {
      return await this.#connect(signal, aborted);
    } finally {
      signal.removeEventListener("abort", abort); // it may live as long as the process
    }
  }

  async #connect(signal: AbortSignal, aborted: Promise<void>): Promise<RedisConnection | undefined> {
    const { dial, whenReady } = this.#options;
    if (this.#last?.hasDelivered || performance.now() - this.#connectedAtMs >= LASTING_MS) {
      this.#failedAttempts = 0;
    }
    while (!signal.aborted) {
      await Promise.race([whenReady(), aborted]);
      const failedAttempts = this.#failedAttempts++;
      // Full jitter: thousands of subscriptions lost at one moment must not come back at one moment.
      if (failedAttempts > 0) {
        await sleep(backoffMs(failedAttempts, BACKOFF), aborted);
      }
      if (signal.aborted) break;
      try {
        const connection = await dial(signal);
        if (!signal.aborted) {
          this.#connectedAtMs = performance.now();
          return this.#last = connection;
        }
        connection.close();
      } catch {
        // Tried again, for as long as anybody listens; whoever dials for us has said why.
      }
    }
    return undefined;
  }
}
