/** Dials Redis again and again until it answers: at a time when it may, and never all at one moment. */
import type { RedisConnection } from "./redis_connection.ts";

const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 2_000;

export interface RedialOptions {
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
  /** Ends the attempts. */
  signal: AbortSignal;
}

/** @returns The new connection; undefined when the attempts were ended. */
export async function redial(
  dial: (signal: AbortSignal) => Promise<RedisConnection>,
  options: RedialOptions,
): Promise<RedisConnection | undefined> {
  const { whenReady, signal } = options;
  const aborted = new Promise<void>((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true })
  );
  for (let attempt = 0; !signal.aborted; attempt++) {
    await Promise.race([whenReady(), aborted]);
    // Full jitter: thousands of subscriptions lost at one moment must not come back at one moment.
    if (attempt > 0) {
      await pause(Math.random() * Math.min(FIRST_BACKOFF_MS * 2 ** attempt, MAX_BACKOFF_MS), aborted);
    }
    if (signal.aborted) break;
    try {
      const connection = await dial(signal);
      if (!signal.aborted) return connection;
      connection.close();
    } catch {
      // Tried again, for as long as anybody listens; the command connection's log says what is wrong.
    }
  }
  return undefined;
}

async function pause(ms: number, aborted: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([promise, aborted]);
  clearTimeout(timer);
}
